import process from 'node:process';
import { createInterface } from 'node:readline';

const [version, root, directory] = process.argv.slice(2);
const paused = new Map<string, 'resume' | 'keep'>();
const lines = createInterface({ input: process.stdin });
process.stdout.write('watching\n');

for await (const line of lines) {
  const key = line.slice(1);
  if (line.startsWith('?') || line.startsWith('+')) paused.set(key, 'resume');
  else if (line.startsWith('!')) paused.set(key, 'keep');
  else paused.delete(key);
}
// The pipe has ended: our parent is gone.
if (paused.size > 0) {
  const { XenCalls } = await import('./calls.ts');
  const { LeftPauses } = await import('./left-pause.ts');
  const calls = XenCalls.open(version || undefined, directory || undefined);
  for (const [key, wish] of paused) {
    try {
      const info = calls.domain(Number.parseInt(key, 10));
      // A domain that is gone needs nothing; one that runs was not paused yet, or somebody has resumed it.
      if (!info?.paused) continue;
      if (wish === 'keep') new LeftPauses(root).note(info);
      else calls.unpause(info.domid);
    } catch {
      // The others are to be unpaused all the same.
      process.exitCode = 1;
    }
  }
  calls.close();
}
