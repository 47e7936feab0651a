import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { DaemonProcess } from '../../live/daemon-process.ts';
import { kernelFile } from '../../live/o1.ts';
import { O1Memory } from '../../live/o1-memory.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { bootPaperGuest, type PaperGuest } from '../o1-guest.ts';
import { lookOn, MemoryWords, type SeenProcess } from './look-on.ts';

/** Interval of the daemon and of its sentinel, 0 for none; and for how long. */
const RUNS = {
  glance: [{ intervalMs: 100, sentinelMs: 5, seconds: 8 }],
  short: [
    { intervalMs: 500, sentinelMs: 0, seconds: 75 },
    { intervalMs: 500, sentinelMs: 5, seconds: 75 },
    { intervalMs: 100, sentinelMs: 0, seconds: 75 },
  ],
  full: [
    { intervalMs: 500, sentinelMs: 0, seconds: 300 },
    { intervalMs: 500, sentinelMs: 5, seconds: 300 },
    { intervalMs: 100, sentinelMs: 0, seconds: 300 },
    { intervalMs: 50, sentinelMs: 0, seconds: 300 },
  ],
} as const;
/** pi1 has the lowest priority; each other one rests and computes, for so many ms, in nobody's step. */
const U1 = { pi1: 'pi1', pi2: 'sleeper2/5300/1200', pi3: 'sleeper3/7900/900' };
const U2 = { pi4: 'sleeper4/3100/1300' };
const WARM_MS = 1_500;

async function seenIn(
  { guest }: PaperGuest,
  words: MemoryWords,
  programs: Readonly<Record<string, string>>,
): Promise<SeenProcess[]> {
  await using memory = await O1Memory.open(guest, 'base');
  const word = (address: bigint) => words.at(memory.physical(address));
  const curr = word((await memory.runqueue(0)) + memory.offset('runqueue', 'curr'));
  const tasks = await memory.tasks();
  return Object.entries(programs).map(([name, program]) => {
    const task = tasks.get(program.replace(/\/.*/, ''))!;
    const array = word(task + memory.offset('task_struct', 'array'));
    return { process: name, runs: () => curr() === task, wants: () => array() !== 0n };
  });
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fig8-'));
  await using _remove = { [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
  await using u1 = await bootPaperGuest('u1', Object.values(U1).join(','));
  await using u2 = await bootPaperGuest('u2', Object.values(U2).join(','));
  await u1.guest.waitFor(/^sleeper3 /, 120_000);
  await u2.guest.waitFor(/^sleeper4 /, 120_000);
  using words1 = new MemoryWords(u1.guest.memoryFile);
  using words2 = new MemoryWords(u2.guest.memoryFile);
  const seen = [...(await seenIn(u1, words1, U1)), ...(await seenIn(u2, words2, U2))];
  await using daemon = new DaemonProcess(directory, [u1.connection, u2.connection]);
  process.once('exit', () => {
    if (daemon.pid !== undefined) process.kill(daemon.pid);
  });
  await daemon.extract(kernelFile('base'));
  for (const { intervalMs, sentinelMs, seconds } of RUNS[form]) {
    const begun = daemon.logged();
    await daemon.configure(
      '[[policy]]\ntype = "idle-only"\nselect = [{ domain = "u1", comm = "pi1" }]',
      [
        `interval = ${intervalMs / 1000}\nidleInterval = ${intervalMs / 1000}\nmaxHold = false`,
        `sentinel = ${sentinelMs === 0 ? 'false' : sentinelMs / 1000}`,
      ].join('\n'),
    );
    daemon.start();
    await daemon.logs(({ msg }) => msg === 'holding', begun);
    say(`the daemon looks every ${intervalMs} ms, its sentinel every ${sentinelMs || '–'}, for ${seconds} s`);
    await sleep(WARM_MS);
    for (const sample of await lookOn(seen, seconds * 1000)) put({ intervalMs, sentinelMs, ...sample });
    const trouble = daemon.log(begun).filter(({ level }) => level >= 50);
    if (trouble.length > 0) throw new Error(`the daemon: ${JSON.stringify(trouble[0])}`);
    await daemon.end('SIGTERM');
  }
  for (const { guest } of [u1, u2]) {
    const bad = guest.lines.find((line) => /BUG|errors=[1-9]/.test(line));
    if (bad !== undefined) throw new Error(bad);
  }
  return {
    accelerator: u1.guest.accelerator,
    guests: [
      `U1 and U2: our O(1) guest with the layout of Linux 2.6.16, 1 vCPU each (pi2 to pi4 are its program \`sleeper\`: ${U1.pi2}, ${U1.pi3}, ${U2.pi4}: rests and computes so many ms)`,
    ],
  };
}
