import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DomschedError } from '../../../runtime/error.ts';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { type FuzzOptions, type FuzzReport, fuzzMutants, type Random } from '../../fuzz/mutants.ts';
import { elfCore, firstBytes, flattened, framesOf, kdump, lime, note, xenCore } from './dump-files.ts';

/** Values at the borders of what fields can say. */
const BORDERS = [
  0n,
  1n,
  0xfffn,
  0x1000n,
  0xffffn,
  0x7fff_ffffn,
  0xffff_ffffn,
  1n << 52n,
  (1n << 63n) - 1n,
  ~0n,
];
const WIDTHS = [1, 2, 4, 8];
/** Headers, tables and notes lie here; pages behind it. */
const HEAD = 4096;

/** Reads mutated dumps of every format: heads with lies at any place and of any width, some of them cut. */
export async function fuzzDumps(options: FuzzOptions): Promise<FuzzReport> {
  const folder = mkdtempSync(path.join(tmpdir(), 'domsched-fuzz-'));
  const file = path.join(folder, 'input');
  const bases = seeds();
  try {
    return await fuzzMutants(
      options,
      (random) => mutate(bases[random(bases.length)]!, random),
      async (input) => {
        writeFileSync(file, input);
        try {
          await using domain = new DumpDomain(file);
          domain.frames.regions();
          firstBytes(domain, [0, 1, 2, 3, 0x100, 2 ** 40 - 1]);
          await domain.registers?.read();
          return undefined;
        } catch (error) {
          if (error instanceof DomschedError) return error.code;
          throw error;
        }
      },
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function seeds(): Buffer[] {
  const pages = new Map([0, 1, 2, 9].map((frame) => [frame, framesOf(1, frame + 1)]));
  const notes = Buffer.concat([note('CORE', 1, Buffer.alloc(336)), note('QEMU', 0, Buffer.alloc(440))]);
  const packed = kdump(pages, notes);
  return [
    elfCore(
      [
        { physical: 0, bytes: framesOf(3) },
        { physical: 0x1000, bytes: framesOf(2) },
      ],
      notes,
    ),
    xenCore(
      [
        [0, 1],
        [1, 3],
      ],
      framesOf(2),
      true,
      Buffer.alloc(5168),
    ),
    xenCore([[0, 1]], framesOf(1), false),
    lime([
      { physical: 0x1000, bytes: framesOf(1) },
      { physical: 0x5000, bytes: framesOf(1) },
    ]),
    packed,
    flattened(packed, []),
  ];
}

function mutate(base: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(base);
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const width = WIDTHS[random(WIDTHS.length)]!;
    // Most lies are in the headers; those of kdump go on behind its first page.
    const at = random(random(3) === 0 ? bytes.length - 8 : Math.min(HEAD, bytes.length) - 8);
    // Fields lie at multiples of four.
    const place = width === 1 ? at : at - (at % 4);
    const near = BigInt(random(5) - 2);
    const lie = (random(2) === 0 ? BORDERS[random(BORDERS.length)]! : BigInt(random(2 ** 31))) + near;
    const value = Buffer.alloc(8);
    value.writeBigUInt64LE(BigInt.asUintN(64, lie));
    value.copy(bytes, place, 0, width);
  }
  return random(4) === 0 ? bytes.subarray(0, 1 + random(bytes.length - 1)) : bytes;
}
