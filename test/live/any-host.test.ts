/**
 * Machines that are found by their processes: two of one name, one with 5 GiB around the hole for devices in QEMU's own
 * memory and a monitor to compare with, one of two memory nodes and without any monitor.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import type { EditWrite } from '../../runtime/edit/edit.ts';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { FRAME_SIZE, type FrameNumber } from '../../runtime/hypervisor/frame.ts';
import { FrameBatch } from '../../runtime/hypervisor/frame-batch.ts';
import { parseMemoryMap } from '../../runtime/hypervisor/qemu/memory-map.ts';
import { asRecord } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { isStopped } from '../../runtime/hypervisor/stopped-process.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { compareWithProc, READ_STATS } from './against-proc.ts';
import { findProcess, PATIENCE_MS, runsOn } from './cycles.ts';
import { diesAfter } from './dies-after.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { HugePages } from './huge-pages.ts';
import { parseProcStats } from './proc-stat.ts';
import { until } from './until.ts';

const NAME = 'twin';
/** Holds, and as many releases, of each guest. */
const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 8);
/** Frames to read that the guest has never used: 32 MiB. */
const ABSENT = 8192;
const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'files', name: 'files-a' },
] as const;
const common = { name: NAME, programs, shellNice: -10, extra: ['-name', `guest=${NAME},debug-threads=on`] };

test.serial('machines by their processes: found, told apart, their memory and their processes', async (t) => {
  t.timeout(600_000);
  const MEMORY = 512;
  using huge = HugePages.take(MEMORY / 2);
  const boots = [
    bootDebian({ ...common, ram: 'anonymous', memory: 5 * 1024 }),
    bootDebian({
      ...common,
      ram: huge ? 'huge-nodes' : 'nodes',
      memory: MEMORY,
      monitors: false,
      kernel: 'debian-6.12-cloud',
      machine: 'pc',
    }),
  ];
  const settled = await Promise.allSettled(boots);
  await using stack = new AsyncDisposableStack();
  for (const boot of settled) if (boot.status === 'fulfilled') stack.use(boot.value);
  const [big, silent] = (await Promise.all(boots)) as unknown as [LiveGuest, LiveGuest];

  await using host = await connect('pid:');
  const listed = (await host.list()).filter(({ identity }) => identity.name === NAME);
  const ids = [big, silent].map((guest) => `pid:${guest.process.pid}`);
  t.deepEqual(listed.map(({ identity }) => identity.id).sort(), [...ids].sort());
  for (const entry of listed) t.like(entry, { state: 'running', vcpus: 2 });

  const known = await knownKernels();
  for (const guest of [big, silent]) {
    await using one = await connect(`pid:${guest.process.pid}`);
    t.deepEqual(one.ids(), [`pid:${guest.process.pid}`]);
    await using domain = await one.open(one.ids()[0]!);
    const attached = await Guest.attach(domain, known);
    const before = parseProcStats(await guest.run(READ_STATS));
    const processes = await processesOf(attached);
    compareWithProc(t, before, processes, parseProcStats(await guest.run(READ_STATS)));
    await holdsAndReleases(t, guest, domain, attached);
    await survivesEveryPrefix(t, guest, domain, attached);
    await tellsWhoStopsIt(t, guest, domain);
    attached.detach();
    if (guest === big) readsAbsentPages(t, guest, domain);
    if (guest === silent) {
      t.is(domain.frames.regions().length, 2, 'a memory node each');
      t.regex(await guest.run('dmesg'), /NUMA: Node 1|NODE_DATA\(1\)/, 'the guest has them');
      continue;
    }
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

/** Pages that QEMU has never touched are zero, and are not taken from the host by being read. */
function readsAbsentPages(t: ExecutionContext, guest: LiveGuest, domain: Domain): void {
  const memory = () => {
    const status = readFileSync(`/proc/${guest.process.pid}/status`, 'latin1');
    return 1024 * Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)![1]);
  };
  const region = domain.frames.regions().at(-1)!;
  let unused = { first: region.first as number, count: 0 };
  let from: number = region.first;
  const end = region.first + region.count;
  for (const { first, count } of [...domain.frames.filled!(region), { first: end, count: 0 }]) {
    if (first - from > unused.count) unused = { first: from, count: first - from };
    from = first + count;
  }
  t.true(unused.count > ABSENT, 'most of its memory was never used');
  const batch = new FrameBatch();
  for (let i = 0; i < ABSENT; i++) batch.add((unused.first + i) as FrameNumber, 0, FRAME_SIZE);
  const before = memory();
  t.is(domain.frames.read(batch), 0, 'none is a fault');
  t.true(batch.bytes.subarray(0, batch.used).every((byte) => byte === 0));
  // The guest itself goes on, and takes some.
  t.true(memory() - before < (ABSENT * FRAME_SIZE) / 2, 'it is no bigger than before');
}

/** Holds each program, sees that it stands still while others go on, and lets it go. */
async function holdsAndReleases(
  t: ExecutionContext,
  guest: LiveGuest,
  domain: Domain,
  attached: Guest,
): Promise<void> {
  requireCapabilities(domain, 'pause', 'writeFrames');
  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  t.deepEqual(surgeon.techniques, ['park'], 'all else needs a pause that outlives us');
  const processes = await processesOf(attached);
  const names = programs.map(({ name }) => name);
  for (let cycle = 0; cycle < CYCLES; cycle++) {
    const name = names[cycle % names.length]!;
    const process = findProcess(processes, name);
    const held = await surgeon.hold(process, { limitMs: PATIENCE_MS });
    t.like(held, { outcome: 'held', techniques: ['park'] });
    const before = await guest.progress(...names);
    await until('others go on', async () => {
      const now = await guest.progress(...names);
      t.is(now[name], before[name], `${name} is held`);
      return names.some((other) => other !== name && now[other]! > before[other]!);
    });
    await surgeon.release(process, { limitMs: PATIENCE_MS });
    await until(`${name} goes on`, async () => (await guest.progress(name))[name]! > before[name]!);
  }
  const burner = findProcess(processes, 'burner-a');
  const error = await t.throwsAsync(surgeon.hold(burner, { techniques: ['splice'] }), { code: 'refused' });
  t.regex(error!.message, /QMP socket of ours/);
  await t.throwsAsync(surgeon.renice(burner, 5), { code: 'refused', message: /nothing was written/ });
  await runsOn(guest, 'burner-a');
}

/** A program of ours is stopped in its pause: the machine stands for as long, and is told because of whom. */
async function tellsWhoStopsIt(t: ExecutionContext, guest: LiveGuest, domain: Domain): Promise<void> {
  t.is(domain.standing!(), undefined);
  const program = path.join(import.meta.dirname, '../runtime/hypervisor/vmm/stop-and-die.ts');
  const other = spawn(process.execPath, [program, String(guest.process.pid)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(other, 'exit');
  t.teardown(() => other.kill('SIGKILL'));
  await once(other.stdout!, 'data');
  t.is(domain.standing!(), undefined, 'the pause of who runs ends by itself');
  other.kill('SIGSTOP');
  await until('it is stopped', () => isStopped(other.pid!));
  t.like(domain.standing!(), { by: 'stopped', pid: other.pid });
  other.kill('SIGKILL');
  await exit;
  t.is(domain.standing!(), undefined);
  await runsOn(guest, 'burner-a');
}

/** An edit ends after each of its words, as when we are killed there: the guest runs on, and all is put right by the next. */
async function survivesEveryPrefix(
  t: ExecutionContext,
  guest: LiveGuest,
  domain: Domain,
  attached: Guest,
): Promise<void> {
  requireCapabilities(domain, 'pause', 'writeFrames');
  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  const processes = await processesOf(attached);
  const options = { limitMs: PATIENCE_MS };
  for (const name of ['burner-a', 'sleeper-a']) {
    const process = findProcess(processes, name);
    for (const what of ['hold', 'release'] as const) {
      for (let words = 0, all = 1; words < all; words++) {
        if (what === 'release') await surgeon.hold(process, options);
        const dying = new Surgeon(diesAfter(domain, words), attached, holderFor(attached));
        const error = await t.throwsAsync<DomschedError>(dying[what](process, options), {
          code: 'edit-failed',
        });
        const writes = error!.details.writes as EditWrite[];
        all = writes.length;
        t.regex(error!.message, new RegExp(`killed after ${words} words`));
        await runsOn(guest, 'burner-b');
        await surgeon.hold(process, options);
        const still = await guest.progress(name);
        await runsOn(guest, 'burner-b');
        t.deepEqual(await guest.progress(name), still, `${what}, ${words} of ${all} words: it can be held`);
        const { kept } = await surgeon.release(process, options);
        t.is(kept, 0);
        await runsOn(guest, name);
      }
    }
  }
  guest.checkConsole();
}
