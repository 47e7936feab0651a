/**
 * Runs inside dom0: what a look at a domain costs with the binding and the walkers of this project, step by step.
 * `node xen-in-dom0.mjs DOMAIN ROUNDS` prints one line of JSON; times are in nanoseconds.
 */
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connectAll } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { advance } from '../../runtime/memory/address.ts';
import { openDomain } from '../../runtime/watch/choose.ts';
import type { XenCosts } from './xen.bench.ts';

/** Rounds before the first that counts: code is compiled and pages are mapped in them. */
const WARM_UP = 200;
/** Words read in one tick, to know what one costs. */
const WORDS = 1000;
/** The guest goes on for so long between two ticks, in ms. */
const REST_MS = 2;

const [name, count] = process.argv.slice(2);
await using hosts = await connectAll(['xen:']);
await using domain = await openDomain(hosts, name!);
requireCapabilities(domain, 'pause');
const { pause } = domain;
let inBinding = 0;
const { frames } = domain;
const readFrames = frames.read.bind(frames);
const guest = await Guest.attach(domain, await knownKernels());
const { space } = guest;
const address = guest.percpu('runqueues', guest.cpus[0]!);
const now = () => performance.now() * 1e6;

const costs: XenCosts = {
  address: `0x${address.toString(16)}`,
  tasks: 0,
  pause: [],
  translate: [],
  read: [],
  unpause: [],
  words: [],
  tick: [],
  queues: [],
  frames: [],
};

/** As the reference does it: one word of a guest that is paused for it. */
async function oneWord(): Promise<void> {
  const at = [now()];
  const guard = await pause.acquire();
  try {
    at.push(now());
    space.translate(address);
    at.push(now());
    space.readU64(address);
    at.push(now());
  } finally {
    await guard.release();
  }
  at.push(now());
  for (const [i, step] of (['pause', 'translate', 'read', 'unpause'] as const).entries()) {
    costs[step].push(at[i + 1]! - at[i]!);
  }
}

/** As the daemon does it: a pause, all run queues. */
async function tick(): Promise<void> {
  const start = now();
  const guard = await pause.acquire();
  try {
    const paused = now();
    inBinding = 0;
    guest.watch();
    costs.queues.push(now() - paused);
    costs.frames.push(inBinding);
  } finally {
    await guard.release();
  }
  costs.tick.push(now() - start);
}

/** Many words of one tick. */
async function words(): Promise<void> {
  const guard = await pause.acquire();
  try {
    space.readU64(address);
    const start = now();
    for (let i = 0; i < WORDS; i++) space.readU64(advance(address, 8 * (i % 256)));
    costs.words.push((now() - start) / WORDS);
  } finally {
    await guard.release();
  }
}

const steps = [oneWord, words, tick];
for (let round = -WARM_UP; round < Number(count); round++) {
  if (round === 0) for (const values of Object.values(costs)) if (Array.isArray(values)) values.length = 0;
  for (const step of steps) {
    // What the clock costs is kept out of all but the tick, where the binding's part is wanted.
    frames.read =
      step === tick
        ? (batch) => {
            const start = now();
            const failed = readFrames(batch);
            inBinding += now() - start;
            return failed;
          }
        : readFrames;
    // A lock that is held, or queues in between two states: a look that does not count.
    await step().catch((error: { code?: string }) => {
      if (error.code !== 'guest-inconsistent') throw error;
    });
    await sleep(REST_MS);
  }
}
guest.watch();
costs.tasks = guest.queues.count;
guest.detach();
process.stdout.write(`${JSON.stringify(costs)}\n`);
