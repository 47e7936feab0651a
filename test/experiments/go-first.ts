import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import process from 'node:process';

const AUTOGROUP = '/proc/self/autogroup';

/**
 * Has this process and all that it starts go before other work of the host: by its nice value, and by that of its
 * session's autogroup, where the kernel makes them (sched(7)), which counts among sessions. The autogroup gets its own
 * value back as this process ends.
 * @throws Error where we may not
 */
export function goFirst(nice: number): void {
  os.setPriority(nice);
  const before = autogroupNice();
  if (before === undefined) return;
  writeFileSync(AUTOGROUP, String(nice));
  process.once('exit', () => writeFileSync(AUTOGROUP, before));
}

function autogroupNice(): string | undefined {
  try {
    return / nice (-?\d+)/.exec(readFileSync(AUTOGROUP, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}
