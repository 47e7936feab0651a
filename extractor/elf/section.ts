import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import { inflateSection, readCompressionHeader } from './compressed-section.ts';
import type { ElfImage, SectionHeader } from './image.ts';
import type { SectionData } from './kernel-file.ts';

/** A section's bytes, decompressed if necessary. */
export function openSection(image: ElfImage, header: SectionHeader): SectionData {
  if (header.index === 0 || header.type === 'null' || header.type === 'nobits') {
    return new PlainSection(image.source, plainName(header.name), header.address, header.offset, 0);
  }
  const compression = readCompressionHeader(image.source, header);
  if (compression) {
    const { source } = image;
    const { address } = header;
    return new PreparedSection(source.path, plainName(header.name), address, compression.size, () =>
      inflateSection(source, header, compression),
    );
  }
  return new PlainSection(image.source, header.name, header.address, header.offset, header.size);
}

/** `.zdebug_info` is the old name of a compressed `.debug_info`. */
export function plainName(name: string): string {
  return name.startsWith('.zdebug_') ? `.${name.slice(2)}` : name;
}

/** Bytes that are stored in the file unchanged. */
export class PlainSection implements SectionData {
  readonly name: string;
  readonly size: number;
  readonly address: bigint;
  readonly #source: FileSource;
  readonly #start: number;

  constructor(source: FileSource, name: string, address: bigint, start: number, size: number) {
    this.name = name;
    this.size = size;
    this.address = address;
    this.#source = source;
    this.#start = start;
  }

  read(offset = 0, length = this.size - offset, target?: Uint8Array): Uint8Array {
    checkRange(this, this.#source.path, offset, length, target);
    return this.#source.read(this.#start + offset, length, target);
  }
}

/** Bytes that are decompressed or linked on the first read and kept while the file is open. */
export class PreparedSection implements SectionData {
  readonly name: string;
  readonly size: number;
  readonly address: bigint;
  readonly #path: string;
  readonly #prepare: () => Buffer;
  #bytes: Buffer | null = null;

  constructor(path: string, name: string, address: bigint, size: number, prepare: () => Buffer) {
    this.#path = path;
    this.name = name;
    this.address = address;
    this.size = size;
    this.#prepare = prepare;
  }

  read(offset = 0, length = this.size - offset, target?: Uint8Array): Uint8Array {
    checkRange(this, this.#path, offset, length, target);
    this.#bytes ??= this.#prepare();
    const part = this.#bytes.subarray(offset, offset + length);
    if (!target) return Uint8Array.from(part);
    target.set(part);
    return target.subarray(0, length);
  }
}

function checkRange(
  section: SectionData,
  path: string,
  offset: number,
  length: number,
  target: Uint8Array | undefined,
): void {
  const inside =
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset + length <= section.size;
  if (inside && (target === undefined || target.length >= length)) return;
  throw new ExtractError(
    'corrupt-elf',
    inside
      ? `${path}: ${length} bytes of ${section.name} do not fit a buffer of ${target?.length}`
      : `${path}: ${section.name} has ${section.size} bytes, none at ${offset} + ${length}; the file is damaged`,
    { path, section: section.name, offset, length, size: section.size },
  );
}
