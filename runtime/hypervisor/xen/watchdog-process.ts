import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeTableFile } from '../pause-files.ts';
import { type NotedPause, PauseTable, readPauses } from '../pause-table.ts';
import { whileStopped } from '../stopped-parent.ts';

/** Descriptor of our parent's pause table. Our standard input is a pipe that the parent never writes to. */
const TABLE = 3;
/** How often to try to give back the pauses of our dead parent: half a minute, for a host that is busy. */
const ATTEMPTS = 120;
const RETRY_MS = 250;

const [pid, started, version, root, directory] = process.argv.slice(2);
const parent = { pid: Number(pid), started: Number(started) };
const table = new PauseTable(TABLE);
const looks = whileStopped(parent, async (stands) => {
  const noted = readPauses(TABLE).filter(({ wish }) => wish === 'resume');
  if (noted.length === 0) return;
  const calls = await openXen();
  try {
    for (const { slot, key: domid } of noted) {
      // Once we have claimed it, no word can be written under this pause, whenever our parent goes on.
      if (!calls.domain(domid)?.paused || !stands()) continue;
      if (!table.change(slot, domid, 'resume', 'claimed')) continue;
      let resumed = false;
      try {
        calls.unpause(domid);
        resumed = true;
      } catch {
        // The others must still be unpaused, and there is another look soon.
      } finally {
        table.change(slot, domid, 'claimed', resumed ? 'resumed' : 'resume');
      }
    }
  } finally {
    calls.close();
  }
});
process.stdout.write('watching\n');
// Until our parent has died.
await new Promise<void>((resolve) => {
  for (const event of ['end', 'error'] as const) process.stdin.once(event, () => resolve());
  process.stdin.resume();
});
clearInterval(looks);

// One that cannot be given back stays in the table, which is a file, for the next of us.
let left = readPauses(TABLE).filter(({ wish }) => wish !== 'resumed');
for (let attempt = 1; left.length > 0; attempt++) {
  left = await giveBack(left).catch(() => left);
  if (left.length === 0 || attempt === ATTEMPTS) break;
  await sleep(RETRY_MS);
}
if (left.length === 0) removeTableFile(TABLE);
else process.exitCode = 1;

/** @returns what could not be given back */
async function giveBack(pauses: readonly NotedPause[]): Promise<NotedPause[]> {
  const { LeftPauses } = await import('./left-pause.ts');
  const calls = await openXen();
  try {
    return pauses.filter(({ slot, key, wish }) => {
      try {
        const info = calls.domain(key);
        // A domain that is gone needs nothing; one that runs was not paused yet, or somebody has resumed it.
        if (info?.paused && wish === 'keep') new LeftPauses(root).note(info);
        else if (info?.paused) calls.unpause(info.domid);
        table.clear(slot);
        return false;
      } catch {
        // The others must still be unpaused.
        return true;
      }
    });
  } finally {
    calls.close();
  }
}

async function openXen() {
  const { XenCalls } = await import('./calls.ts');
  return XenCalls.open(version || undefined, directory || undefined);
}
