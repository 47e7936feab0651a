import { ExtractError } from '../error.ts';
import type { BootImage } from './boot-image.ts';
import { FileSource } from './byte-source.ts';
import { DebugCompanions } from './companions.ts';
import { DEBUG_ROOTS, findDebugFile, isDebugAlone, partners } from './debug-file.ts';
import { detectFormat, FORMAT_BYTES } from './format.ts';
import { type ElfImage, readElfImage } from './image.ts';
import type { KernelFile } from './kernel-file.ts';
import { OpenedKernel } from './opened-kernel.ts';
import { PlainSection } from './section.ts';
import { buildIdOf, SectionSet } from './section-set.ts';
import type { Packed, UnpackOptions } from './unpack.ts';

export interface OpenOptions extends UnpackOptions {
  /** A System.map or saved `/proc/kallsyms` with symbols. */
  symbols?: string | undefined;
  /** The kernel's configuration, plain or gzipped. */
  config?: string | undefined;
  /** Where separate debug files are installed. Default: `/usr/lib/debug`. */
  debugRoots?: readonly string[] | undefined;
}

/** A wrapped bzImage in a wrapper is two layers; nobody means to give a kernel with more than this. */
const MAX_LAYERS = 4;

/**
 * Opens a kernel in any form: ELF64 x86-64 (vmlinux, debug file), bzImage (vmlinuz), unified kernel image, raw BTF
 * (`/sys/kernel/btf/vmlinux`), each also packed as a whole in any of the kernel's compressions. The form is recognized
 * by bytes, never by name. The caller closes the result.
 *
 * @throws ExtractError `file-not-found`, `file-unreadable`, `not-a-kernel`, `not-elf64`, `wrong-architecture`,
 *   `truncated`, `corrupt-elf`, `corrupt-archive`, `unsupported-compression`, `no-space`, `interrupted`
 */
export async function openKernelFile(path: string, options: OpenOptions = {}): Promise<KernelFile> {
  const stack = new AsyncDisposableStack();
  try {
    const given = stack.use(FileSource.open(path));
    const { source, format, boot } = await unwrap(given, stack, options);
    if (format === 'btf') {
      const btf = new PlainSection(source, '.BTF', 0n, 0, source.size);
      const { runningKernel } = await import('./running-kernel.ts');
      const [sections, running] = [new SectionSet([], [btf]), runningKernel(path)];
      return new OpenedKernel({ path, options, stack, given, sections, boot, running });
    }
    const image = readElfImage(source);
    let sections = new SectionSet([image]);
    const roots = options.debugRoots ?? DEBUG_ROOTS;
    let companions = new DebugCompanions(path, sections, roots, stack);
    const kernel = new OpenedKernel({ path, options, stack, given, sections, boot, companions });
    if (isDebugAlone(sections)) {
      const partner = await findPartner(path, sections, roots, stack, options);
      if (!partner) return kernel;
      sections = new SectionSet([partner, image]);
      companions = new DebugCompanions(path, sections, roots, stack);
    } else {
      const debug = findDebugFile(path, sections, () => kernel.release(), roots);
      if (!debug) return kernel;
      stack.use(debug.source);
      sections = new SectionSet([image, debug]);
      companions = new DebugCompanions(debug.source.path, sections, roots, stack);
    }
    return new OpenedKernel({ path, options, stack, given, sections, boot, companions });
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** Content of a file without its wrappings. */
interface Unwrapped {
  source: FileSource;
  format: 'elf' | 'btf';
  /** The outermost boot image around it. */
  boot: BootImage | null;
}

/** Removes every wrapping. Files opened for that are closed with `stack`. */
async function unwrap(
  given: FileSource,
  stack: AsyncDisposableStack,
  options: UnpackOptions,
): Promise<Unwrapped> {
  const { path } = given;
  let source = given;
  let boot: BootImage | null = null;
  for (let layer = 0; layer <= MAX_LAYERS; layer++) {
    const format = detectFormat(source.read(0, Math.min(FORMAT_BYTES, source.size)));
    if (format === 'elf' || format === 'btf') return { source, format, boot };
    if (format === 'unknown' || format === 'ar') throw notAKernel(path, source.size, format);
    // Plain files, the usual case, do not need this.
    const { unpack } = await import('./unpack.ts');
    let packed: Packed = { source, offset: 0, length: source.size, format };
    if (format === 'bzimage') {
      boot = (await import('./boot-image.ts')).readBootImage(source);
      packed = boot.payload;
    } else if (format === 'pe') packed = (await import('./unified-image.ts')).readUnifiedImage(source);
    source = stack.use(await unpack(packed, options));
  }
  throw new ExtractError(
    'corrupt-archive',
    `${path} is packed more than ${MAX_LAYERS} times; unpack it by hand, or give the vmlinux in it`,
    { path, layers: MAX_LAYERS },
  );
}

/**
 * Finds the kernel that a debug file was split from: a file of the same build, plain or packed, in one of the usual
 * places. Other files there are skipped, even if damaged.
 */
async function findPartner(
  path: string,
  sections: SectionSet,
  roots: readonly string[],
  stack: AsyncDisposableStack,
  options: UnpackOptions,
): Promise<ElfImage | null> {
  const buildId = buildIdOf(sections);
  if (buildId === null) return null;
  for (const candidate of partners(path, roots)) {
    await using own = new AsyncDisposableStack();
    try {
      const { source, format } = await unwrap(own.use(FileSource.open(candidate)), own, options);
      if (format !== 'elf') continue;
      const image = readElfImage(source);
      const its = new SectionSet([image]);
      if (isDebugAlone(its) || buildIdOf(its) !== buildId) continue;
      stack.use(own.move());
      return image;
    } catch (error) {
      if (!(error instanceof ExtractError) || error.code === 'interrupted') throw error;
    }
  }
  return null;
}

function notAKernel(path: string, size: number, format: 'unknown' | 'ar'): ExtractError {
  const why =
    size === 0
      ? `${path} is empty; fetch or copy it again`
      : format === 'ar'
        ? `${path} is a package or archive; take the vmlinux out of it (of a .deb: dpkg-deb --extract FILE FOLDER)`
        : `${path} is no kernel: neither ELF, nor bzImage, nor BTF, nor any of these packed`;
  return new ExtractError('not-a-kernel', why, { path, size });
}
