import process from 'node:process';
import { readPauses } from './pause-table.ts';

/** Descriptor of our parent's pause table. Our standard input is a pipe that the parent never writes to. */
const TABLE = 3;

const [version, root, directory] = process.argv.slice(2);
process.stdout.write('watching\n');
// Sleeps until our parent has died.
await new Promise<void>((resolve) => {
  for (const event of ['end', 'error'] as const) process.stdin.once(event, () => resolve());
  process.stdin.resume();
});

const pauses = readPauses(TABLE);
if (pauses.length > 0) {
  const { XenCalls } = await import('./calls.ts');
  const { LeftPauses } = await import('./left-pause.ts');
  const calls = XenCalls.open(version || undefined, directory || undefined);
  for (const { domid, wish } of pauses) {
    try {
      const info = calls.domain(domid);
      // A domain that is gone needs nothing; one that runs was not paused yet, or somebody has resumed it.
      if (!info?.paused) continue;
      if (wish === 'keep') new LeftPauses(root).note(info);
      else calls.unpause(info.domid);
    } catch {
      // The others must still be unpaused.
      process.exitCode = 1;
    }
  }
  calls.close();
}
