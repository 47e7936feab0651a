/**
 * What split = true costs on a live guest: a look at its processes by the system call that copies many ranges, and by the
 * files that a broker hands over; a whole hold and release with and without the broker. Both ways in turn, in pairs.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { BrokerClient } from '../../runtime/brokered/client.ts';
import { BrokeredHost } from '../../runtime/brokered/host.ts';
import { brokeredJournals } from '../../runtime/brokered/journals.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { JournaledSurgeon, Journals } from '../../runtime/surgeon/journaled-surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, PATIENCE_MS } from '../live/cycles.ts';
import { bootDebian } from '../live/guest.ts';

const PROCESSES = 150;
const PAIRS = Number(process.env.PAIRS ?? 300);
const EDITS = Number(process.env.EDITS ?? 40);

await using guest = await bootDebian({
  name: 'bench',
  programs: [{ kind: 'burner', name: 'burner' }],
  shellNice: -10,
  ram: (process.env.RAM as 'memfd' | undefined) ?? 'anonymous',
  extra: ['-name', 'guest=bench,debug-threads=on'],
});
await guest.run(`for i in $(seq ${PROCESSES}); do sleep 100000 & done`);
process.env.DOMSCHED_RUNTIME_DIR = await mkdtemp(path.join(tmpdir(), 'domsched-bench-'));
const known = await knownKernels();
const id = `pid:${guest.process.pid}`;
await using client = BrokerClient.start([id]);
await using whole = await connect(id);
await using split = new BrokeredHost(client, id);
const open = async (
  host: { open(id: string): Promise<Parameters<typeof JournaledSurgeon.open>[0]> },
  journals: Journals,
) => JournaledSurgeon.open(await host.open(id), known, journals);
const ways = [
  await open(whole, new Journals()),
  await open(split, brokeredJournals(client, process.env.DOMSCHED_RUNTIME_DIR)),
];

/** CPU time in ms: ours, and the broker's. */
function used(): number {
  const { user, system } = process.cpuUsage();
  const [ran = 0] = readFileSync(`/proc/${client.pid}/schedstat`, 'latin1').split(' ').map(Number);
  return (user + system) / 1e3 + ran / 1e6;
}

async function measure(step: (way: JournaledSurgeon) => unknown): Promise<{ cpu: number; wall: number }[]> {
  const taken: { cpu: number; wall: number }[] = [];
  for (const way of ways) {
    const [cpu, wall] = [used(), performance.now()];
    await step(way);
    taken.push({ cpu: used() - cpu, wall: performance.now() - wall });
  }
  return taken;
}

function tell(what: string, pairs: readonly { cpu: number; wall: number }[][], each = 1): void {
  const quantile = (values: readonly number[], q: number) =>
    values.toSorted((a, b) => a - b)[Math.floor(q * values.length)]!;
  for (const kind of ['cpu', 'wall'] as const) {
    const of = (way: number) =>
      quantile(
        pairs.map((pair) => pair[way]![kind] / each),
        0.5,
      ).toFixed(3);
    const ratios = pairs.map(([one, two]) => two![kind] / one![kind]);
    const quartiles = [0.25, 0.5, 0.75].map((q) => quantile(ratios, q).toFixed(2));
    console.log(
      `${what}, ${kind}: ${of(0)} ms in one process, ${of(1)} split; ratio ${quartiles[1]} (quartiles ${quartiles[0]}, ${quartiles[2]})`,
    );
  }
}

const LOOKS = 20;
const looks = [];
for (let i = -30; i < PAIRS; i++) {
  const pair = await measure(({ guest }) => {
    for (let look = 0; look < LOOKS; look++) {
      guest.domain.tick();
      guest.processesAlone();
    }
  });
  if (i >= 0) looks.push(pair);
}
const count = (await processesOf(ways[0]!.guest)).length;
tell(`a look at ${count} processes`, looks, LOOKS);
const edits = [];
const options = { limitMs: PATIENCE_MS };
for (let i = -4; i < EDITS; i++) {
  const pair = await measure(async (way) => {
    const burner = findProcess(await processesOf(way.guest), 'burner');
    await way.hold(burner, options);
    await way.release(burner, options);
  });
  if (i >= 0) edits.push(pair);
}
tell('a hold and a release', edits);
for (const way of ways) way.detach();
await rm(process.env.DOMSCHED_RUNTIME_DIR, { recursive: true, force: true });
