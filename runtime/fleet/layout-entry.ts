import { z } from 'zod';
import { MEMORY_LAYOUT_FORMAT, type Remembered } from '../guest/learn/remembered.ts';

const address = z.string().regex(/^(?:0x[0-9a-f]{1,16}|[0-9]{1,20})$/);
const ENTRY = z.object({
  format: z.literal(MEMORY_LAYOUT_FORMAT),
  guest: z.string().max(256),
  date: z.iso.datetime(),
  evidence: z.object({
    ranges: z
      .array(
        z.object({
          address,
          length: z
            .int()
            .min(1)
            .max(2 ** 30),
        }),
      )
      .min(1)
      .max(64),
    moved: address.nullable(),
  }),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  layout: z.unknown(),
});

/**
 * Reads a layout that somebody else wrote, which may be anything.
 * @returns why it is none, if so
 */
export async function decodeEntry(bytes: Uint8Array): Promise<Remembered | string> {
  // Loaded only here: hosts that take no layouts need no schema of them.
  const { validateLayout } = await import('../../codegen/validate.ts');
  try {
    const entry = ENTRY.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)));
    return { ...entry, layout: validateLayout(entry.layout) };
  } catch (error) {
    return `it is no layout: ${(error as Error).message.split('\n').join(' ').slice(0, 200)}`;
  }
}
