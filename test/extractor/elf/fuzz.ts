import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { type FuzzOptions, type FuzzReport, fuzzMutants, type Random } from '../../fuzz/mutants.ts';
import { buildKallsyms, FORMATS, manySymbols } from '../kallsyms/build-kallsyms.ts';
import {
  BANNER,
  buildBootImage,
  buildElf,
  buildIdNote,
  buildKernel,
  compressed,
  SHF_COMPRESSED,
  SHT,
  withSize,
} from './build-elf.ts';
import { refusal } from './scratch.ts';

/**
 * Opens mutated kernels and reads all of each. Structure-aware: mutations aim at the fields of the ELF header,
 * the section table, the notes, the compression headers, the symbol table and the boot header, with values at
 * the borders; some inputs are also cut, or packed after the mutation.
 */
export async function fuzzKernelFiles(options: FuzzOptions): Promise<FuzzReport> {
  const directory = mkdtempSync(join(tmpdir(), 'domsched-fuzz-'));
  const path = join(directory, 'input');
  const bases = seeds();
  try {
    return await fuzzMutants(
      options,
      (random) => mutate(bases[random(bases.length)]!, random),
      async (input) => {
        writeFileSync(path, input);
        return (await refusal(path)) ?? undefined;
      },
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

interface Seed {
  bytes: Buffer;
  /** Byte offsets of 2, 4 or 8 byte fields worth lying about. */
  fields: readonly (readonly [offset: number, width: 2 | 4 | 8])[];
  /** Where random bytes are worth changing. */
  hot: readonly (readonly [from: number, to: number])[];
  wrap?: (bytes: Buffer) => Buffer;
}

/** A kernel without a symbol table, whose own symbols are in its read-only data. */
function strippedSeed(): Seed {
  const address = 0xffffffff82000000n;
  const head = Buffer.alloc(256);
  head.write(`${BANNER}\n`, 'latin1');
  const symbols = manySymbols(1024, address, 'base');
  const tables = buildKallsyms(symbols, FORMATS['6.15 to 6.19']!, address + 256n);
  const bytes = buildElf([
    { name: '.text', flags: 6n, address: 0xffffffff81000000n, bytes: Buffer.alloc(64) },
    { name: '.rodata', flags: 2n, address, bytes: Buffer.concat([head, tables]) },
  ]);
  return { bytes, fields: [], hot: [[0, bytes.length]] };
}

export function seeds(): Seed[] {
  const text = Buffer.from('strings of the debug information '.repeat(40));
  const old = Buffer.concat([
    Buffer.from('ZLIB\0\0\0\0\0\0'),
    Buffer.from([text.length >> 8, text.length & 255]),
    deflateSync(text),
  ]);
  const size = BigInt(text.length);
  const kernel = buildKernel([
    { name: '.debug_str', flags: SHF_COMPRESSED, bytes: compressed(1, size, deflateSync(text)) },
    { name: '.debug_line', flags: SHF_COMPRESSED, bytes: compressed(2, size, zstdCompressSync(text)) },
    { name: '.zdebug_loc', bytes: old },
    { name: '.note.gnu.build-id', type: SHT.note, bytes: buildIdNote('aabbccdd') },
    { name: '.gnu_debuglink', bytes: Buffer.from('kernel.debug\0\0\0\0abcd') },
  ]);
  const plain: Seed = { bytes: kernel, ...elfTargets(kernel) };
  const boot = buildBootImage(withSize(zstdCompressSync(kernel), kernel.length));
  const bootTargets: Seed['fields'] = [
    [0x1f1, 2],
    [0x202, 4],
    [0x206, 2],
    [0x20e, 2],
    [0x248, 4],
    [0x24c, 4],
  ];
  const stored = buildBootImage(withSize(storedLz4(kernel), kernel.length));
  return [
    plain,
    plain,
    plain,
    { bytes: Buffer.from(`${BANNER}\n`), fields: [[0, 4]], hot: [[0, 20]] },
    {
      bytes: boot,
      fields: bootTargets,
      hot: [
        [0x1f1, 0x250],
        [5 * 512 + 0x100, boot.length],
      ],
    },
    {
      bytes: stored,
      fields: [...bootTargets, [5 * 512 + 0x104, 4]],
      hot: [[5 * 512 + 0x100, 5 * 512 + 0x140]],
    },
    { ...plain, wrap: (bytes) => gzipSync(bytes, { level: 1 }) },
    { ...plain, wrap: (bytes) => zstdCompressSync(bytes) },
    strippedSeed(),
    { bytes: gzipSync(kernel), fields: [], hot: [[0, 200]] },
    { bytes: zstdCompressSync(kernel), fields: [], hot: [[0, 200]] },
  ];
}

/** LZ4's legacy frame with one block of literals only. */
function storedLz4(bytes: Buffer): Buffer {
  const lengths: number[] = [];
  let rest = bytes.length - 15;
  for (; rest >= 255; rest -= 255) lengths.push(255);
  const block = Buffer.concat([Buffer.from([0xf0, ...lengths, rest]), bytes]);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184c2102, 0);
  head.writeUInt32LE(block.length, 4);
  return Buffer.concat([head, block]);
}

function elfTargets(elf: Buffer): Pick<Seed, 'fields' | 'hot'> {
  const table = Number(elf.readBigUInt64LE(40));
  const fields: (readonly [number, 2 | 4 | 8])[] = [
    [4, 2],
    [16, 2],
    [18, 2],
    [32, 8],
    [40, 8],
    [52, 2],
    [54, 2],
    [56, 2],
    [58, 2],
    [60, 2],
    [62, 2],
  ];
  const hot: (readonly [number, number])[] = [
    [0, 64],
    [table, elf.length],
  ];
  for (let at = table; at < elf.length; at += 64) {
    for (const [offset, width] of [
      [0, 4],
      [4, 4],
      [8, 8],
      [16, 8],
      [24, 8],
      [32, 8],
      [40, 4],
    ] as const) {
      fields.push([at + offset, width]);
    }
    const start = Number(elf.readBigUInt64LE(at + 24));
    const size = Number(elf.readBigUInt64LE(at + 32));
    if (start > 0 && start + size <= elf.length && size > 0) {
      // The heads of sections hold note sizes, compression headers and symbols.
      hot.push([start, start + Math.min(size, 96)]);
      for (let word = start; word + 8 <= start + Math.min(size, 48); word += 4)
        fields.push([word, 4], [word, 8]);
    }
  }
  return { fields, hot };
}

const BORDERS: readonly bigint[] = [
  0n,
  1n,
  2n,
  3n,
  24n,
  63n,
  64n,
  65n,
  0x7fn,
  0xffn,
  0xffffn,
  0x10000n,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];

function mutate(seed: Seed, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(seed.bytes);
  for (let count = random(4); count >= 0; count--) {
    const kind = random(10);
    if (kind < 6 && seed.fields.length > 0) {
      const [offset, width] = seed.fields[random(seed.fields.length)]!;
      writeField(bytes, offset, width, fieldValue(bytes, offset, width, random));
    } else if (kind < 9) {
      const [from, to] = seed.hot[random(seed.hot.length)]!;
      const at = from + random(to - from);
      if (at < bytes.length) bytes[at] = random(256);
    } else {
      bytes = bytes.subarray(0, random(bytes.length + 1));
    }
  }
  return seed.wrap ? seed.wrap(bytes) : bytes;
}

/** A border, the file's size give or take, another field's value, or the old one give or take. */
function fieldValue(bytes: Buffer, offset: number, width: number, random: Random): bigint {
  switch (random(4)) {
    case 0:
      return BORDERS[random(BORDERS.length)]!;
    case 1:
      return BigInt(Math.max(0, bytes.length + random(5) - 2));
    case 2:
      return BigInt(random(bytes.length + 1));
    default: {
      const old = offset + width <= bytes.length ? readField(bytes, offset, width) : 0n;
      return old + BigInt(random(9) - 4);
    }
  }
}

function readField(bytes: Buffer, offset: number, width: number): bigint {
  let value = 0n;
  for (let index = width - 1; index >= 0; index--) value = (value << 8n) | BigInt(bytes[offset + index]!);
  return value;
}

function writeField(bytes: Buffer, offset: number, width: number, value: bigint): void {
  for (let index = 0; index < width && offset + index < bytes.length; index++) {
    bytes[offset + index] = Number((value >> BigInt(8 * index)) & 0xffn);
  }
}
