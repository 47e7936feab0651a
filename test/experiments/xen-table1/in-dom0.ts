/**
 * Runs inside dom0: one word of a paused domain, by us and by a C program that works as the paper's prototype did, in
 * turns. `node in-dom0.mjs DOMAIN DOMID COMM TURNS ROUNDS REFERENCE` prints one line of JSON for each word; COMM is whose
 * descriptor the word is of.
 */
import { execFileSync } from 'node:child_process';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { connectAll } from '../../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { openDomain } from '../../../runtime/watch/choose.ts';
import type { XenTable1Sample } from './judge.ts';

/** Rounds before the first that counts: code is compiled and pages are mapped in them. */
const WARM_UP = 200;
/** The guest goes on for so long between two pauses, in ms: as long as in the C program. */
const REST_MS = 2;

const [name, domid, comm, turns, rounds, reference] = process.argv.slice(2);
await using hosts = await connectAll(['xen:']);
await using domain = await openDomain(hosts, name!);
requireCapabilities(domain, 'pause');
const { pause } = domain;
const guest = await Guest.attach(domain, await knownKernels());
const { space } = guest;
const { processes } = await guest.take();
const address = processes.find((one) => one.comm === comm)!.address;
const micros = () => performance.now() * 1000;

async function ours(turn: number): Promise<XenTable1Sample> {
  const at = [micros()];
  const guard = await pause.acquire();
  try {
    at.push(micros());
    space.translate(address);
    at.push(micros());
    space.readU64(address);
    at.push(micros());
  } finally {
    await guard.release();
  }
  at.push(micros());
  const [acquire, translateUs, wordUs, release] = at.slice(1).map((time, i) => time - at[i]!);
  return {
    way: 'ours',
    turn,
    pauseUs: acquire! + release!,
    translateUs: translateUs!,
    mapUs: 0,
    wordUs: wordUs!,
  };
}

function theirs(turn: number): XenTable1Sample[] {
  const text = execFileSync(reference!, [domid!, `0x${address.toString(16)}`, rounds!], { encoding: 'utf8' });
  const steps = JSON.parse(text) as Record<
    'pause' | 'translate' | 'map' | 'read' | 'unmap' | 'unpause',
    number[]
  >;
  return steps.pause.map((pause, i) => ({
    way: 'paper',
    turn,
    pauseUs: (pause + steps.unpause[i]!) / 1000,
    translateUs: steps.translate[i]! / 1000,
    mapUs: (steps.map[i]! + steps.unmap[i]!) / 1000,
    wordUs: steps.read[i]! / 1000,
  }));
}

for (let round = 0; round < WARM_UP; round++) {
  await ours(0);
  await sleep(REST_MS);
}
for (let turn = 0; turn < Number(turns); turn++) {
  const samples: XenTable1Sample[] = [];
  for (const way of turn % 2 === 0 ? ['ours', 'paper'] : ['paper', 'ours']) {
    if (way === 'paper') samples.push(...theirs(turn));
    else
      for (let round = 0; round < Number(rounds); round++) {
        samples.push(await ours(turn));
        await sleep(REST_MS);
      }
  }
  for (const sample of samples) process.stdout.write(`${JSON.stringify(sample)}\n`);
}
guest.detach();
