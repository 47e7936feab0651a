import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { MemoryEvidence } from '../../../extractor/contract.ts';
import { guestVirtual } from '../../memory/address.ts';
import { ReadBatch } from '../../memory/read-batch.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { tryRead } from '../identify/banner.ts';

/** Limit on all ranges together: a kernel's tables and types take 6 to 12 MiB. */
const MAX_BYTES = 96 << 20;
/** Small enough to be hashed while it is in a CPU's cache. */
const CHUNK = 256 << 10;

/**
 * SHA-256 of all bytes that a layout was made from, as this guest has them. Equal hashes mean equal layouts. So a guest
 * that shows another's banner and build-id cannot get the other's layout, nor give it its own.
 *
 * @returns null where not all bytes are mapped
 */
export async function evidenceHash(
  space: AddressSpace,
  slide: bigint,
  { ranges, moved }: MemoryEvidence,
): Promise<string | null> {
  const hash = createHash('sha256');
  if (ranges.reduce((sum, { length }) => sum + length, 0) > MAX_BYTES) return null;
  const batch = new ReadBatch(CHUNK);
  for (const { address, length } of ranges) {
    hash.update(`${address} ${length}\n`);
    for (let done = 0; done < length; done += CHUNK) {
      const at = guestVirtual(BigInt(address) + slide + BigInt(done));
      batch.clear();
      batch.add(at, Math.min(CHUNK, length - done));
      if (space.read(batch) > 0) return null;
      hash.update(batch.content(0));
      await setImmediate();
    }
  }
  if (moved !== null) {
    const bytes = tryRead(space, guestVirtual(BigInt(moved) + slide), 8);
    if (bytes === undefined) return null;
    hash.update(`${moved} ${Buffer.from(bytes).readBigUInt64LE() - slide}\n`);
  }
  return hash.digest('hex');
}
