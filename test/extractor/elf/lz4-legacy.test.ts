import { execFileSync } from 'node:child_process';
import test from 'ava';
import fc from 'fast-check';
import { decodeLz4Block } from '../../../extractor/elf/lz4-legacy.ts';
import { ExtractError } from '../../../extractor/error.ts';

/** A file's LZ4 blocks as the tool of Debian packs it. */
function blocks(bytes: Uint8Array, level: string): Buffer[] {
  const packed = execFileSync('lz4', ['-q', '-l', level, '-c'], { input: bytes, maxBuffer: 1 << 28 });
  const found: Buffer[] = [];
  for (let at = 4; at < packed.length; ) {
    const size = packed.readUInt32LE(at);
    found.push(packed.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return found;
}

test('gives back what lz4 packed', (t) => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.tuple(fc.nat(255), fc.nat(2000)).map(([byte, length]) => new Uint8Array(length).fill(byte)),
    fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.nat(400))
      .map(([part, count]) =>
        Uint8Array.from({ length: part.length * count }, (_, index) => part[index % part.length]!),
      ),
  );
  fc.assert(
    fc.property(
      fc.array(piece, { minLength: 1, maxLength: 12 }),
      fc.constantFrom('-1', '-9'),
      (pieces, level) => {
        const bytes = Buffer.concat(pieces);
        const target = new Uint8Array(bytes.length);
        let size = 0;
        for (const block of blocks(bytes, level)) size = decodeLz4Block(block, target);
        return size === bytes.length && Buffer.compare(target, bytes) === 0;
      },
    ),
    { numRuns: 60 },
  );
  t.pass();
});

test('any bytes are either decoded within the target or refused', (t) => {
  let refused = 0;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(500), (packed, room) => {
      const target = new Uint8Array(room);
      try {
        const size = decodeLz4Block(packed, target);
        return size <= room;
      } catch (error) {
        refused++;
        return error instanceof ExtractError && error.code === 'corrupt-archive';
      }
    }),
    { numRuns: 3000 },
  );
  t.true(refused > 1000);
});
