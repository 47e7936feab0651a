import { createCipheriv, createHash, randomBytes, timingSafeEqual } from 'node:crypto';
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
 * An authentication code (GMAC, NIST SP 800-38D) of the bytes that a layout was made from, by a random key of its own. It
 * takes a tenth of the time of a hash, or less. Nobody who does not know the key can make other bytes with the same code
 * but by luck (2^-100 for each try), so key and code stay in a file of ours.
 */
export interface Seal {
  /** In hex. */
  readonly key: string;
  readonly tag: string;
}

/** What recognizes the bytes that a layout was made from. */
export interface EvidenceMarks {
  /** SHA-256, for whoever gets the layout from us. */
  readonly hash: string;
  /** For ourselves. */
  readonly seal: Seal;
}

/**
 * Marks of all bytes that a layout was made from, as this guest has them. Equal bytes mean equal layouts. So a guest
 * that shows another's banner and build-id cannot get the other's layout, nor give it its own.
 *
 * @returns null where not all bytes are mapped
 */
export async function marksOf(
  space: AddressSpace,
  slide: bigint,
  evidence: MemoryEvidence,
): Promise<EvidenceMarks | null> {
  const hash = createHash('sha256');
  const key = randomBytes(KEY_BYTES);
  const code = codeBy(key);
  const isWhole = await readEvidence(space, slide, evidence, (bytes) => {
    hash.update(bytes);
    code.update(bytes);
  });
  if (!isWhole) return null;
  const seal = { key: key.toString('hex'), tag: code.tag().toString('hex') };
  return { hash: hash.digest('hex'), seal };
}

/** Whether a guest has the very bytes that were sealed. */
export async function hasSeal(
  space: AddressSpace,
  slide: bigint,
  evidence: MemoryEvidence,
  seal: Seal,
): Promise<boolean> {
  const [key, tag] = [Buffer.from(seal.key, 'hex'), Buffer.from(seal.tag, 'hex')];
  if (key.length !== KEY_BYTES || tag.length !== TAG_BYTES) return false;
  const code = codeBy(key);
  const isWhole = await readEvidence(space, slide, evidence, (bytes) => code.update(bytes));
  return isWhole && timingSafeEqual(code.tag(), tag);
}

const KEY_BYTES = 32;
const TAG_BYTES = 16;

function codeBy(key: Uint8Array): { update(bytes: Uint8Array): void; tag(): Buffer } {
  // One nonce is enough, as only one code by each key is ever seen, and that by us alone.
  const cipher = createCipheriv('aes-256-gcm', key, new Uint8Array(12), { authTagLength: TAG_BYTES });
  return {
    update: (bytes) => void cipher.setAAD(bytes),
    tag: () => {
      cipher.final();
      return cipher.getAuthTag();
    },
  };
}

/**
 * Gives all bytes to `update`, with their addresses.
 * @returns false where not all of them are mapped
 */
async function readEvidence(
  space: AddressSpace,
  slide: bigint,
  { ranges, moved }: MemoryEvidence,
  update: (bytes: Uint8Array) => void,
): Promise<boolean> {
  if (ranges.reduce((sum, { length }) => sum + length, 0) > MAX_BYTES) return false;
  const batch = new ReadBatch(CHUNK);
  for (const { address, length } of ranges) {
    update(Buffer.from(`${address} ${length}\n`));
    for (let done = 0; done < length; done += CHUNK) {
      const at = guestVirtual(BigInt(address) + slide + BigInt(done));
      batch.clear();
      batch.add(at, Math.min(CHUNK, length - done));
      if (space.read(batch) > 0) return false;
      update(batch.content(0));
      await setImmediate();
    }
  }
  if (moved !== null) {
    const bytes = tryRead(space, guestVirtual(BigInt(moved) + slide), 8);
    if (bytes === undefined) return false;
    update(Buffer.from(`${moved} ${Buffer.from(bytes).readBigUInt64LE() - slide}\n`));
  }
  return true;
}
