import { basename } from 'node:path';
import { Readable, type Transform, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { ExtractError } from '../error.ts';
import { type FileSource, fileError } from './byte-source.ts';
import type { FileFormat } from './format.ts';
import { decodeLz4Block, LZ4_LEGACY_BLOCK, LZ4_LEGACY_MAGIC, LZ4_LEGACY_PACKED_BLOCK } from './lz4-legacy.ts';
import { TemporaryFile } from './temporary-file.ts';

/**
 * Limits on unpacking a file: 16 GiB, and 64 MiB plus 256 times its size. A vmlinux with debug information packs to
 * between a quarter and a tenth.
 */
const MAX_UNPACKED = 2 ** 34;
const MAX_RATIO = 256;
const RATIO_SLACK = 64 << 20;
/** Memory that `xz` may allocate: the kernel's build uses dictionaries of up to 128 MiB. */
const XZ_MEMORY = '512MiB';
const PIECE = 256 << 10;

export interface UnpackOptions {
  /** Reports progress of a slow step: bytes done, bytes in all, and the step's name. */
  progress?: ((done: number, total: number, what: string) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Folder of the unpacked bytes. Default: the system's directory for temporary files. */
  temporaryDirectory?: string | undefined;
}

/** A packed range of a file. */
export interface Packed {
  readonly source: FileSource;
  readonly offset: number;
  readonly length: number;
  /** `stored`: a part of the file that is not packed. */
  readonly format: FileFormat | 'stored';
  /** Bytes after decompression, if the container tells. */
  readonly unpackedSize?: number;
}

/**
 * External tools for compressions that Node does not support. npm has no maintained decoder for xz and lzma with the
 * x86 filter and the kernel's big dictionaries; the others are too rare to support natively.
 */
const TOOLS: Partial<Record<Packed['format'], { command: readonly [string, ...string[]]; debian: string }>> =
  {
    xz: {
      command: ['xz', '-dc', '--format=xz', `--memlimit-decompress=${XZ_MEMORY}`],
      debian: 'xz-utils',
    },
    lzma: {
      command: ['xz', '-dc', '--format=lzma', `--memlimit-decompress=${XZ_MEMORY}`],
      debian: 'xz-utils',
    },
    bzip2: { command: ['bzip2', '-dc'], debian: 'bzip2' },
    lzo: { command: ['lzop', '-dc'], debian: 'lzop' },
    lz4: { command: ['lz4', '-dc'], debian: 'lz4' },
  };
const WITHOUT_TOOL: readonly Packed['format'][] = ['gzip', 'zstd', 'lz4-legacy', 'stored'];

/** @throws ExtractError `unsupported-compression` */
export function checkSupported(path: string, format: Packed['format']): void {
  if (!WITHOUT_TOOL.includes(format) && !TOOLS[format]) throw unsupported(path, format);
}

/**
 * Unpacks into a temporary file without a name. The caller closes the result.
 * @throws ExtractError `unsupported-compression`, `corrupt-archive`, `truncated`, `no-space`, `interrupted`
 */
export async function unpack(packed: Packed, options: UnpackOptions): Promise<FileSource> {
  const { source, format, unpackedSize } = packed;
  using file = new TemporaryFile(options.temporaryDirectory);
  const bound = unpackedSize ?? Math.min(MAX_UNPACKED, RATIO_SLACK + MAX_RATIO * packed.length);
  const append = (bytes: Uint8Array): void => {
    if (file.size + bytes.length > bound) {
      throw new ExtractError(
        'corrupt-archive',
        `${source.path} unpacks to more than the ${bound} bytes that it may hold; fetch or copy it again`,
        { path: source.path, format, bound },
      );
    }
    file.append(bytes);
  };
  try {
    await unpackAs(packed, append, options);
  } catch (error) {
    throw unpackError(error, packed, options.signal);
  }
  if (unpackedSize !== undefined && file.size !== unpackedSize) {
    throw new ExtractError(
      'corrupt-archive',
      `${source.path} unpacks to ${file.size} bytes instead of the ${unpackedSize} it declares; fetch or copy it again`,
      { path: source.path, format, size: file.size, declared: unpackedSize },
    );
  }
  return file.toSource(source.path);
}

async function unpackAs(
  packed: Packed,
  append: (bytes: Uint8Array) => void,
  options: UnpackOptions,
): Promise<void> {
  switch (packed.format) {
    case 'gzip':
      return throughStream(packed, createGunzip(), append, options);
    case 'zstd':
      return throughStream(packed, createZstdDecompress(), append, options);
    case 'lz4-legacy':
      return throughLz4(packed, append, options);
    case 'stored':
      for (const piece of pieces(packed, options)) {
        options.signal?.throwIfAborted();
        append(piece);
      }
      return;
    default:
      return throughTool(packed, append, options);
  }
}

async function throughStream(
  packed: Packed,
  decompressor: Transform,
  append: (bytes: Uint8Array) => void,
  options: UnpackOptions,
): Promise<void> {
  const sink = async (output: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const bytes of output) append(bytes);
  };
  const { signal } = options;
  await (signal
    ? pipeline(input(packed, options), decompressor, sink, { signal })
    : pipeline(input(packed, options), decompressor, sink));
}

async function throughTool(
  packed: Packed,
  append: (bytes: Uint8Array) => void,
  options: UnpackOptions,
): Promise<void> {
  const { format } = packed;
  const { path } = packed.source;
  const tool = TOOLS[format];
  if (!tool) throw unsupported(path, format);
  const { execa } = await import('execa');
  const [program, ...args] = tool.command;
  const running = execa(program, args, {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    buffer: { stdout: false },
    maxBuffer: 64 << 10,
    reject: false,
    env: { LC_ALL: 'C' },
    ...(options.signal ? { cancelSignal: options.signal } : {}),
  });
  // The program may stop early at damaged data; its exit code reports that, not the broken pipe.
  const feeding = pipeline(input(packed, options), running.stdin as Writable).catch(() => {});
  try {
    for await (const bytes of running.stdout as AsyncIterable<Uint8Array>) append(bytes);
  } catch (error) {
    running.kill('SIGKILL');
    await running;
    throw error;
  }
  const [result] = await Promise.all([running, feeding]);
  if (result.exitCode === 0) return;
  if (result.code === 'ENOENT') {
    throw new ExtractError(
      'unsupported-compression',
      `${path} is packed with ${format}, and ${program} is not installed: apt-get install ${tool.debian}`,
      { path, format },
    );
  }
  const stderr = result.stderr.trim();
  if (ENDS_EARLY.test(stderr)) throw endsEarly(packed);
  throw damaged(packed, stderr);
}

/** Messages of the programs for a truncated file. */
const ENDS_EARLY = /unexpected end of (?:input|file)|ends unexpectedly|unfinished stream/i;

async function throughLz4(
  packed: Packed,
  append: (bytes: Uint8Array) => void,
  options: UnpackOptions,
): Promise<void> {
  const { source, length } = packed;
  const word = (at: number): number => source.read(packed.offset + at, 4).readUInt32LE(0);
  const target = Buffer.allocUnsafeSlow(Math.min(LZ4_LEGACY_BLOCK, packed.unpackedSize ?? LZ4_LEGACY_BLOCK));
  const block = Buffer.allocUnsafeSlow(Math.min(LZ4_LEGACY_PACKED_BLOCK, length));
  let at = 0;
  while (at < length) {
    options.signal?.throwIfAborted();
    if (at + 4 > length) throw endsEarly(packed);
    const size = word(at);
    at += 4;
    // Frames may follow one another.
    if (size === LZ4_LEGACY_MAGIC) continue;
    if (size > LZ4_LEGACY_PACKED_BLOCK) throw damaged(packed, `LZ4 block of ${size} bytes`);
    if (at + size > length) throw endsEarly(packed);
    append(target.subarray(0, decodeLz4Block(source.read(packed.offset + at, size, block), target)));
    at += size;
    report(packed, options, at);
    // Gives signals and the progress display a turn.
    await setImmediate();
  }
}

/** The packed bytes as a stream. Not from node:fs, whose streams close a descriptor they did not open. */
function input(packed: Packed, options: UnpackOptions): Readable {
  return Readable.from(pieces(packed, options));
}

function* pieces(packed: Packed, options: UnpackOptions): Generator<Buffer> {
  const { source, offset, length } = packed;
  for (let at = 0; at < length; at += PIECE) {
    const piece = source.read(offset + at, Math.min(PIECE, length - at));
    report(packed, options, at + piece.length);
    yield piece;
  }
}

function report({ source, length }: Packed, options: UnpackOptions, done: number): void {
  options.progress?.(done, length, `unpack ${basename(source.path)}`);
}

function unsupported(path: string, format: Packed['format']): ExtractError {
  return new ExtractError(
    'unsupported-compression',
    `${path} is packed in an unknown way; give the vmlinux it was made from`,
    { path, format },
  );
}

function unpackError(error: unknown, packed: Packed, signal: AbortSignal | undefined): ExtractError {
  const { path } = packed.source;
  if (signal?.aborted) {
    return new ExtractError('interrupted', `unpacking ${path} was interrupted; nothing was changed`, {
      path,
    });
  }
  if (error instanceof ExtractError) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'Z_BUF_ERROR') return endsEarly(packed);
  if (code.startsWith('Z_') || code.startsWith('ZSTD_')) {
    return damaged(packed, error instanceof Error ? error.message : code, error);
  }
  return fileError(error, path);
}

function endsEarly({ source, format }: Packed): ExtractError {
  return new ExtractError(
    'truncated',
    `${source.path} ends in the middle of its ${format} data; fetch or copy it again`,
    { path: source.path, format, size: source.size },
  );
}

function damaged({ source, format }: Packed, what: string, cause?: unknown): ExtractError {
  return new ExtractError(
    'corrupt-archive',
    `${source.path} holds damaged ${format} data (${what}); fetch or copy it again`,
    { path: source.path, format, what },
    cause === undefined ? undefined : { cause },
  );
}
