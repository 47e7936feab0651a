import { fileURLToPath } from 'node:url';
import test from 'ava';
import { execa } from 'execa';
import { Journal } from '../../runtime/surgeon/journal.ts';
import { bootDebian } from './guest.ts';

const program = fileURLToPath(new URL('../../domsched.ts', import.meta.url));

interface OutcomeEntry {
  domain: string;
  pid: number;
  technique: string | null;
  outcome: string;
  attempts: number;
  pausedUs: number;
  writes: number;
  planned?: string[];
}

test('domsched hold and release on a live Debian guest, with a journal and a dry run', async (t) => {
  t.timeout(900_000);
  const programs = [
    { kind: 'burner', name: 'worker' },
    { kind: 'threads', name: 'many' },
  ] as const;
  await using guest = await bootDebian({ kernel: 'debian-6.12-cloud', name: 'web', programs });
  const journal = new Journal();
  const records = async () =>
    (await journal.list()).filter(({ domain }) => domain === guest.sockets.qmp).map(({ comm }) => comm);
  const run = async (...args: string[]) => {
    const all = [program, ...args, '--timeout', '30', '--connect', guest.connection];
    const { stdout, stderr, exitCode } = await execa(process.execPath, all, { reject: false });
    return { exitCode, stdout, stderr };
  };
  const json = async (...args: string[]) => {
    const { exitCode, stdout, stderr } = await run(...args, '--json');
    t.is(exitCode, 0, stderr);
    return (JSON.parse(stdout) as OutcomeEntry[])[0]!;
  };
  const progress = async () => (await guest.progress('worker')).worker!;
  while ((await progress()) === 0);

  const dry = await json('hold', 'web', 'worker', '--dry-run');
  t.is(dry.outcome, 'planned');
  t.true(dry.planned!.some((line) => line.startsWith('task.jobctl (JOBCTL_TRAP_FREEZE)')));
  t.deepEqual(await records(), []);

  t.like(await json('hold', 'web', 'worker'), { domain: 'web', technique: 'park', outcome: 'held' });
  t.deepEqual(await records(), ['worker']);
  const before = await progress();
  const again = await json('hold', 'web', 'worker');
  t.is(again.outcome, 'unchanged');
  t.is(await progress(), before);
  t.like(await json('release', 'web', 'worker'), { technique: 'park', outcome: 'released' });
  t.deepEqual(await records(), []);
  while ((await progress()) === before);

  // Threads, then everything at once.
  t.is((await json('hold', 'web', 'many')).outcome, 'held');
  t.is((await json('hold', 'web', 'worker')).outcome, 'held');
  t.deepEqual((await records()).sort(), ['many', 'worker']);
  // Others on this machine may have records too, of domains that are not behind this place.
  const everything = [program, 'release', '--all', '--connect', guest.connection];
  const all = await execa(process.execPath, everything, { reject: false });
  t.regex(all.stdout, /worker.*released by park/, all.stderr);
  t.deepEqual(await records(), []);

  // Whom no record tells of, as on the host that a guest was migrated to, is found in the guest.
  t.is((await json('hold', 'web', 'many')).outcome, 'held');
  for (const record of await journal.list()) if (record.comm === 'many') await journal.remove(record);
  const found = await execa(process.execPath, everything, { reject: false });
  t.regex(found.stderr, /many\) is held, and no record tells by whom: letting it go/);
  t.regex(found.stdout, /many.*released by park/);
  const nobody = await execa(process.execPath, everything, { reject: false });
  t.notRegex(`${nobody.stdout} ${nobody.stderr}`, /many/);

  const refused = await run('hold', 'web', '1');
  t.is(refused.exitCode, 3);
  t.regex(refused.stderr, /nothing was changed/);
  const reniced = await json('renice', 'web', 'worker', '5');
  t.is(reniced.outcome, 'reniced');
  t.deepEqual(await records(), []);
  const pid = reniced.pid;
  t.is((await guest.run(`cat /proc/${pid}/stat`)).split(') ')[1]!.split(' ')[16], '5');

  // Other ways, when asked for; each is found again by the release.
  for (const technique of ['splice', 'state']) {
    const held = await json('hold', 'web', 'worker', '--technique', technique);
    t.like(held, { technique, outcome: 'held' });
    const standing = await progress();
    t.like(await json('release', 'web', 'worker'), { technique, outcome: 'released' });
    while ((await progress()) === standing);
  }
  t.deepEqual(await records(), []);
  const group = await run('renice', 'web', 'worker', '5', '--group');
  t.is(group.exitCode, 3);
  t.regex(group.stderr, /in no group of its own/);
  guest.checkConsole();
});
