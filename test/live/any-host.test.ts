/**
 * Machines that are found by their processes: two of one name, one with 5 GiB around the hole for devices in QEMU's own
 * memory and a monitor to compare with, one in a memfd and without any monitor.
 */
import test from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { parseMemoryMap } from '../../runtime/hypervisor/qemu/memory-map.ts';
import { asRecord } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { compareWithProc, READ_STATS } from './against-proc.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { parseProcStats } from './proc-stat.ts';

const NAME = 'twin';
const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'files', name: 'files-a' },
] as const;
const common = { name: NAME, programs, shellNice: -10, extra: ['-name', `guest=${NAME},debug-threads=on`] };

test.serial('machines by their processes: found, told apart, their memory and their processes', async (t) => {
  t.timeout(600_000);
  const boots = [
    bootDebian({ ...common, ram: 'anonymous', memory: 5 * 1024 }),
    bootDebian({ ...common, ram: 'memfd', monitors: false, kernel: 'debian-6.12-cloud', machine: 'pc' }),
  ];
  const settled = await Promise.allSettled(boots);
  await using stack = new AsyncDisposableStack();
  for (const boot of settled) if (boot.status === 'fulfilled') stack.use(boot.value);
  const [big, silent] = (await Promise.all(boots)) as unknown as [LiveGuest, LiveGuest];

  await using host = await connect('pid:');
  const listed = (await host.list()).filter(({ identity }) => identity.name === NAME);
  const ids = [big, silent].map(({ process }) => `pid:${process.pid}`);
  t.deepEqual(listed.map(({ identity }) => identity.id).sort(), [...ids].sort());
  for (const entry of listed) t.like(entry, { state: 'running', vcpus: 2 });

  const known = await knownKernels();
  for (const guest of [big, silent]) {
    await using one = await connect(`pid:${guest.process.pid}`);
    t.deepEqual(one.ids(), [`pid:${guest.process.pid}`]);
    await using domain = await one.open(one.ids()[0]!);
    const attached = await Guest.attach(domain, known);
    const before = parseProcStats(await guest.run(READ_STATS));
    const { processes } = await attached.take();
    compareWithProc(t, before, processes, parseProcStats(await guest.run(READ_STATS)));
    attached.detach();
    if (guest === silent) continue;
    const ours = domain.frames
      .regions()
      .map(({ first, count }) => ({ start: first * 4096, length: count * 4096 }));
    t.is(ours.length, 2, 'below and above the hole');
    const monitor = await guest.monitor();
    const backends = await monitor.execute('query-memdev');
    const names = (backends as unknown[]).map((each) => String(asRecord(each)?.id));
    const ranges = parseMemoryMap(await monitor.human('info mtree -f'), new Set(names));
    // QEMU's ranges leave out what firmware shadows; each of them has to be where it says within ours.
    for (const { start, length, offset } of ranges) {
      const piece = ours.find((each) => start >= each.start && start + length <= each.start + each.length);
      t.truthy(piece, `${start.toString(16)} is in our memory`);
      const before = ours.slice(0, ours.indexOf(piece!)).reduce((sum, each) => sum + each.length, 0);
      t.is(before + start - piece!.start, offset, `${start.toString(16)} is where the monitor says`);
    }
    const end = (pieces: readonly { start: number; length: number }[]) =>
      Math.max(...pieces.map((each) => each.start + each.length));
    t.is(end(ours), end(ranges));
  }
  for (const guest of [big, silent]) guest.checkConsole();
});
