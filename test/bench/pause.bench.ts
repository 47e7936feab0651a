/**
 * `node test/bench/pause.bench.ts [--rounds N] [--edits N]`: what a pause costs a machine by its process (its CPUs' threads
 * are traced) and by its monitor (QMP `stop` and `cont`), in turn on the same machine in the same run, so that whatever else
 * the host does falls on both alike. Boots Debian's 6.12 with two vCPUs and a disk. Writes `.cache/bench/pause.json`.
 *
 * - a pause and its end, with clean disks; of ptrace also without what QEMU's translator alone needs, which is found
 *   between two instructions: what is left is what a machine of KVM's costs;
 * - `hold` and `release` by park: all pauses of one together, each from when it is asked for until the guest goes on;
 * - the same every 500 ms while the guest writes its disk without pause: the longest stand-still;
 * - how far the guest's clock falls behind the host's in 1,000 pauses;
 * - a word read, and an address translated, as in the paper's Table 1.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { DomainWith } from '../../runtime/hypervisor/types.ts';
import { StoppedThreads } from '../../runtime/hypervisor/vmm/stopped-threads.ts';
import { machineThreads } from '../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { findProcess, PATIENCE_MS } from '../live/cycles.ts';
import { bootDebian } from '../live/guest.ts';
import { median, percentile, record } from './harness.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '500' }, edits: { type: 'string', default: '40' } },
});
const rounds = Number(values.rounds);
const edits = Number(values.edits);
const EDIT_EVERY_MS = 500;
const WRITER = '(while :; do dd if=/dev/zero of=/mnt/file bs=1M count=48; done) >/dev/null 2>&1 &';

type TimedDomain = DomainWith<'pause' | 'writeFrames'>;
interface Way {
  readonly name: 'ptrace' | 'QMP';
  readonly domain: TimedDomain;
  /** Every stand-still since it was emptied, µs: from when a pause is asked for until the guest has been told to go on. */
  readonly stood: number[];
  readonly surgeon: Surgeon;
  readonly guest: Guest;
}

/** Notes how long each pause of a domain lasts. */
function timed(domain: TimedDomain, stood: number[]): TimedDomain {
  const pause = {
    ...(domain.pause.endsWithUs && { endsWithUs: true as const }),
    get depth() {
      return domain.pause.depth;
    },
    acquire: async () => {
      const start = performance.now();
      const guard = await domain.pause.acquire();
      const release = async () => {
        await guard.release();
        stood.push((performance.now() - start) * 1000);
      };
      return new Proxy(guard, {
        get: (target, key) => {
          if (key === 'release' || key === Symbol.asyncDispose) return release;
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    },
  };
  return new Proxy(domain, {
    get: (target, key) => {
      if (key === 'pause') return pause;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const known = await knownKernels();
await using machine = await bootDebian({
  name: 'bench',
  kernel: 'debian-6.12-cloud',
  ram: 'memfd',
  disk: true,
  programs: [
    { kind: 'burner', name: 'burner-a' },
    { kind: 'burner', name: 'burner-b' },
  ],
  shellNice: -10,
  extra: ['-name', 'guest=bench,debug-threads=on'],
});
await using host = await connect(`pid:${machine.process.pid}`);
await using byProcess = await host.open(host.ids()[0]!);
await using byMonitor = await QemuDomain.attach(machine.sockets, machine.connection);

const ways: Way[] = [];
for (const [name, domain] of [
  ['ptrace', byProcess],
  ['QMP', byMonitor],
] as const) {
  requireCapabilities(domain, 'pause', 'writeFrames');
  const stood: number[] = [];
  const watched = timed(domain, stood);
  const guest = await Guest.attach(watched, known);
  ways.push({ name, domain: watched, stood, guest, surgeon: new Surgeon(watched, guest, holderFor(guest)) });
}
const { processes } = await ways[0]!.guest.take();
const burner = findProcess(processes, 'burner-a');

async function pauses(count: number): Promise<void> {
  for (let round = 0; round < count; round++) {
    for (const { domain } of ways) {
      const guard = await domain.pause.acquire();
      await guard.release();
      await sleep(2);
    }
  }
}

/** Holds and releases in turn by each way. @returns the stand-still of each operation, all its pauses together, µs */
async function operate({ surgeon, stood }: Way, what: 'hold' | 'release'): Promise<number> {
  stood.length = 0;
  await surgeon[what](burner, { techniques: ['park'], limitMs: PATIENCE_MS });
  return stood.reduce((sum, each) => sum + each, 0);
}

function empty(): void {
  for (const { stood } of ways) stood.length = 0;
}

const rows: { what: string; ptrace: number; qmp: number; unit: string }[] = [];
function row(what: string, unit: string, of: (way: Way) => number): void {
  const [ptrace, qmp] = ways.map(of) as [number, number];
  rows.push({ what, ptrace, qmp, unit });
}

await pauses(20);
empty();
await pauses(rounds);
row('pause and resume, median', 'µs', ({ stood }) => median(stood));
const bare: number[] = [];
for (let round = 0; round < rounds; round++) {
  const { pid } = machine.process;
  const start = performance.now();
  try {
    StoppedThreads.stop(pid!, () => machineThreads(pid!).vcpus).release();
    bare.push((performance.now() - start) * 1000);
  } catch {
    // It had no CPU of a busy host.
  }
  await sleep(2);
}
row('the same, no translator', 'µs', (way) => median(way.name === 'ptrace' ? bare : way.stood));
row('pause and resume, 99 of 100', 'µs', ({ stood }) => percentile(stood, 0.99));

const done = new Map<Way, { hold: number[]; release: number[]; longest: number }>();
for (const way of ways) done.set(way, { hold: [], release: [], longest: 0 });
async function editAll(count: number, everyMs: number): Promise<void> {
  for (const each of done.values()) Object.assign(each, { hold: [], release: [], longest: 0 });
  for (let round = 0; round < count; round++) {
    for (const way of ways) {
      const into = done.get(way)!;
      for (const what of ['hold', 'release'] as const) {
        into[what].push(await operate(way, what));
        into.longest = Math.max(into.longest, ...way.stood);
        await sleep(everyMs);
      }
    }
  }
}
await editAll(3, 10);
await editAll(edits, 20);
row('hold by park, all its pauses, median', 'µs', (way) => median(done.get(way)!.hold));
row('release, all its pauses, median', 'µs', (way) => median(done.get(way)!.release));
row('longest stand-still, clean disks', 'µs', (way) => done.get(way)!.longest);

await machine.run(WRITER);
await sleep(2_000);
await editAll(Math.ceil(edits / 4), EDIT_EVERY_MS);
row('hold by park, disk being written, median', 'µs', (way) => median(done.get(way)!.hold));
row('longest stand-still, disk being written', 'µs', (way) => done.get(way)!.longest);
await machine.run("kill $(ps -o pid,args | awk '/while|dd if/ {print $1}') 2>/dev/null; true");

/** Seconds that the guest says it has been up, less those that went by here. */
async function drift(): Promise<number> {
  const hostBefore = performance.now();
  const uptime = Number((await machine.run('cat /proc/uptime')).split(' ')[0]);
  return uptime * 1000 - (hostBefore + performance.now()) / 2;
}
const behind = new Map<string, number>();
for (const { name, domain } of ways) {
  const before = await drift();
  for (let round = 0; round < 1_000; round++) {
    await using _guard = await domain.pause.acquire();
  }
  behind.set(name, before - (await drift()));
}
row('clock behind after 1,000 pauses', 'ms', ({ name }) => behind.get(name)!);

const COUNT = 2_000;
const perCall = (call: () => unknown): number => {
  for (let i = 0; i < 200; i++) call();
  const start = performance.now();
  for (let i = 0; i < COUNT; i++) call();
  return ((performance.now() - start) * 1000) / COUNT;
};
row('address translated', 'µs', ({ guest, domain }) =>
  perCall(() => {
    domain.tick();
    return guest.space.locate(burner.address, 8);
  }),
);
row('word read', 'µs', ({ guest }) => perCall(() => guest.space.readU64(burner.address)));
for (const { guest } of ways) guest.detach();
machine.checkConsole();

const table = new Table({
  head: ['', 'ptrace', 'QMP', 'ptrace / QMP'],
  colAligns: ['left', 'right', 'right', 'right'],
  style: { head: [], border: [] },
});
for (const { what, ptrace, qmp, unit } of rows)
  table.push([`${what}, ${unit}`, ptrace.toFixed(1), qmp.toFixed(1), (ptrace / qmp).toFixed(2)]);
console.log(
  `${rounds} pauses, ${edits} edits each way; load of the host ${readFileSync('/proc/loadavg', 'latin1').trim()}`,
);
console.log(table.toString());
await record('pause', { rows });
