import type { KernelFile, SectionData } from '../../../extractor/elf/kernel-file.ts';
import { ExtractError } from '../../../extractor/error.ts';

/** A kernel file of nothing but these sections, in memory. */
export function memoryFile(sections: Readonly<Record<string, Uint8Array>>): KernelFile {
  return {
    path: 'memory',
    elfPath: null,
    buildId: null,
    sectionNames: Object.keys(sections),
    section: (name) => (sections[name] ? memorySection(name, sections[name]) : null),
    banner: () => null,
    release: () => null,
    symbols: () => [],
    lookup: () => new Map(),
    config: () => null,
    sha256: async () => '',
    [Symbol.asyncDispose]: async () => {},
  };
}

function memorySection(name: string, bytes: Uint8Array): SectionData {
  return {
    name,
    size: bytes.length,
    address: 0n,
    read(offset = 0, length = bytes.length - offset, target = new Uint8Array(length)) {
      if (offset < 0 || length < 0 || offset + length > bytes.length) {
        throw new ExtractError('corrupt-elf', `${offset}+${length} is outside ${name}`);
      }
      target.set(bytes.subarray(offset, offset + length));
      return target;
    },
  };
}
