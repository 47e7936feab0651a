/**
 * What it would cost to read each guest in a process of its own without privileges: a worker looks and plans, a broker
 * is told and writes. Figures of docs/security.md; guests are models, with 150 processes each.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Guest } from '../../runtime/guest/guest.ts';
import { CFS_KERNEL, knownKernel, SyntheticGuest, type SyntheticTask } from '../runtime/guest/synthetic.ts';

const PROCESSES = 150;
const LOOKS = 2_000;
const WARM_UP = 1_000;
const POOLED = 25;
/** USER_HZ */
const MS_PER_TICK = 10;
const NOBODY = 65_534;

type Request =
  | { readonly add: number }
  | { readonly look: 'all' | 'changes'; readonly guest: number }
  | { readonly edit: object };

async function model(): Promise<Guest> {
  const tasks = Array.from({ length: PROCESSES }, (_, i): SyntheticTask => {
    return { pid: i + 1, comm: 'many', cpu: 0, state: 'sleeping', ...(i > 0 && { ppid: 1 }) };
  });
  const { domain } = await SyntheticGuest.make({ kernel: CFS_KERNEL, tasks });
  return Guest.attach(domain, [knownKernel(CFS_KERNEL)]);
}

async function work(): Promise<void> {
  const guests: Guest[] = [];
  process.on('message', async (request: Request) => {
    if ('add' in request) {
      for (let i = 0; i < request.add; i++) guests.push(await model());
      process.send!(guests.length);
    } else if ('edit' in request) process.send!(request.edit);
    else {
      const { processes } = guests[request.guest]!.snapshot();
      const changes = () => Float64Array.from(processes, ({ runtimeNs }) => runtimeNs);
      process.send!(request.look === 'all' ? processes : changes());
    }
  });
}

async function measure(): Promise<void> {
  const worker = fork(fileURLToPath(import.meta.url), ['worker'], {
    serialization: 'advanced',
    uid: NOBODY,
    gid: NOBODY,
  });
  const ask = async (request: Request) => {
    const answer = once(worker, 'message');
    worker.send(request);
    await answer;
  };
  const own = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const its = () => {
    const fields = readFileSync(`/proc/${worker.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
  };
  const privateMib = () => {
    const text = readFileSync(`/proc/${worker.pid}/smaps_rollup`, 'utf8');
    return Number(/^Private_Dirty:\s+(\d+)/m.exec(text)![1]) / 1024;
  };
  /** CPU time of one step in ms: ours, and the worker's. */
  const cost = async (step: () => unknown) => {
    for (let i = 0; i < WARM_UP; i++) await step();
    const [before, itsBefore] = [own(), its()];
    for (let i = 0; i < LOOKS; i++) await step();
    return { here: (own() - before) / LOOKS, there: (its() - itsBefore) / LOOKS };
  };
  const guest = await model();
  await ask({ add: 1 });
  const alone = privateMib();
  const inside = await cost(() => guest.snapshot());
  console.log(`a look at ${PROCESSES} processes within one process: ${inside.here.toFixed(2)} ms CPU`);
  for (const look of ['all', 'changes'] as const) {
    const { here, there } = await cost(() => ask({ look, guest: 0 }));
    const more = Math.round((100 * (here + there)) / inside.here - 100);
    console.log(
      `split, ${look}: ${there.toFixed(2)} ms in the worker, ${here.toFixed(2)} in the broker: ${more} % more`,
    );
  }
  const writes = Array.from({ length: 8 }, (_, frame) => ({ frame, offset: 8, size: 8, old: 1n, new: 2n }));
  const edit = await cost(() => ask({ edit: { writes, reads: writes.map(() => new Uint8Array(64)) } }));
  console.log(`an edit of 8 words there and back: ${(edit.here + edit.there).toFixed(2)} ms CPU`);
  await ask({ add: POOLED - 1 });
  for (let i = 0; i < LOOKS; i++) await ask({ look: 'changes', guest: i % POOLED });
  const pooled = privateMib();
  console.log(
    `a worker with 1 guest: ${alone.toFixed(0)} MiB of its own; with ${POOLED}: ${pooled.toFixed(0)}, ` +
      `${(pooled / POOLED).toFixed(1)} for each`,
  );
  worker.kill();
}

await (process.argv[2] === 'worker' ? work() : measure());
