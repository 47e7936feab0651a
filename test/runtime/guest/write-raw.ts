import { open } from 'node:fs/promises';
import type { SyntheticGuest } from './synthetic.ts';

/** The guest's memory as a raw file, with holes where nothing is. */
export async function writeRaw(guest: SyntheticGuest, file: string): Promise<void> {
  const chunk = 2 ** 20;
  const handle = await open(file, 'w');
  const end = guest.physical(guest.alloc(64));
  const nothing = Buffer.alloc(chunk);
  for (let at = 0; at < end; at += chunk) {
    const bytes = guest.image.load(at, chunk);
    if (!nothing.equals(bytes)) await handle.write(bytes, 0, chunk, at);
  }
  await handle.close();
}
