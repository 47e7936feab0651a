import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { truncate } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import anyTest, { type TestFn } from 'ava';
import { DomschedError } from '../../runtime/error.ts';
import { DumpDomain } from '../../runtime/hypervisor/dump/domain.ts';
import { FRAME_SIZE, type GuestFrame, guestFrame } from '../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../runtime/hypervisor/frame-batch.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { QemuHost } from '../../runtime/hypervisor/qemu/host.ts';
import { asRecord } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { isStopped } from '../../runtime/hypervisor/stopped-process.ts';
import type { DomainEvent } from '../../runtime/hypervisor/types.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

const MARKER = 'domsched-marker-';

const test = anyTest as TestFn<{ guest: LiveGuest }>;

test.before(async (t) => {
  t.context.guest = await bootDebian({
    name: 'faults',
    memory: 256,
    extra: ['-action', 'reboot=reset'],
    programs: [{ kind: 'burner', name: 'burner-a' }],
    setup: 'echo 0 > /proc/sys/kernel/printk_devkmsg 2>/dev/null; true',
  });
});
test.after.always((t) => t.context.guest?.[Symbol.asyncDispose]());

/** Frames of the guest that hold `text` somewhere, by reading all of its memory. */
function search(domain: QemuDomain, text: string): { frame: GuestFrame; offset: number }[] {
  const found: { frame: GuestFrame; offset: number }[] = [];
  const batch = new FrameBatch<GuestFrame>();
  for (const { first, count } of domain.frames.regions()) {
    for (let start = 0; start < count; start += 512) {
      batch.clear();
      for (let i = start; i < Math.min(count, start + 512); i++)
        batch.add(guestFrame(first + i), 0, FRAME_SIZE);
      domain.frames.read(batch);
      const bytes = Buffer.from(batch.bytes.buffer, 0, batch.used);
      for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) {
        const frame = guestFrame(batch.frames[Math.floor(at / FRAME_SIZE)]!);
        found.push({ frame, offset: at % FRAME_SIZE });
      }
    }
  }
  return found;
}

async function status(guest: LiveGuest): Promise<unknown> {
  return asRecord(await (await guest.monitor()).execute('query-status'))?.status;
}

async function becomes(guest: LiveGuest, wanted: string, limitMs: number): Promise<boolean> {
  for (const end = Date.now() + limitMs; Date.now() < end; await sleep(100)) {
    if ((await status(guest)) === wanted) return true;
  }
  return false;
}

test.serial('what we write is what the guest reads', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const text = `${MARKER}${process.pid}-${Date.now()}`;
  // Put together in the guest, so that its shell's own memory does not have it in one piece.
  await guest.run(`printf '%s%s' ${MARKER} ${text.slice(MARKER.length)} > /run/marker; sync`);
  await using guard = await domain.pause.acquire();
  const places = search(domain, text);
  t.true(places.length > 0, 'the file is found in memory');
  const bytes = Buffer.from(text.replace('domsched', 'REPLACED'));
  domain.writeFrames.write(places.map((place) => ({ ...place, bytes })));
  await guard.release();
  t.is(await guest.run('cat /run/marker'), bytes.toString());
});

test.serial('holes and ROM are absent, and a write there writes nothing', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const batch = new FrameBatch<GuestFrame>();
  const ram = batch.add(guestFrame(0x100), 0, 16);
  const rom = batch.add(guestFrame(0xffff0), 0, 16);
  const hole = batch.add(guestFrame(0x80000), 0, 16);
  const msi = batch.add(guestFrame(0xfee00), 0, 16);
  t.is(domain.frames.read(batch), 3);
  t.is(batch.status[ram], FRAME_STATUS.ok);
  for (const index of [rom, hole, msi]) t.is(batch.status[index], FRAME_STATUS.absent);
  const first = batch.bytes.slice(batch.positions[ram]!, batch.positions[ram]! + 16);
  const writes = [0x100, 0xfee00].map((frame) => ({
    frame: guestFrame(frame),
    offset: 0,
    bytes: Buffer.alloc(16, 0xee),
  }));
  t.throws(() => domain.writeFrames.write(writes), { code: 'frame-unmapped' });
  domain.frames.read(batch);
  t.deepEqual(batch.bytes.slice(batch.positions[ram]!, batch.positions[ram]! + 16), first);
});

test.serial('an interrupt arrives at the vCPU it is for', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const counts = async (): Promise<number[]> => {
    // A function call interrupt with no work queued does nothing but count.
    const line = (await guest.run('grep -E "^ *CAL:" /proc/interrupts')).trim().split(/\s+/);
    return [Number(line[1]), Number(line[2])];
  };
  for (const vcpu of [0, 1]) {
    const before = (await counts())[vcpu]!;
    // Interrupts of one vector that is still pending merge, as long as a busy host does not run the vCPU.
    await until(`20 interrupts at vCPU ${vcpu}`, async () => {
      for (let i = 0; i < 40; i++) {
        await domain.notify!.inject(vcpu, 0xfb);
        await sleep(5);
      }
      return (await counts())[vcpu]! - before >= 20;
    });
  }
  await t.throwsAsync(domain.notify!.inject(9, 0xfb), { code: 'usage' });
  await t.throwsAsync(domain.notify!.inject(0, 3), { code: 'usage' });
  guest.checkConsole();
});

test.serial('a second client is told that the first is there', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const error = await t.throwsAsync(QemuDomain.attach(guest.sockets, guest.connection), {
    instanceOf: DomschedError,
  });
  t.is(error.code, 'timeout');
  t.is(await domain.state(), 'running');
});

test.serial('paused by someone else: stays so; resumed by someone else: our guard is void', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const monitor = await guest.monitor();
  const events: DomainEvent[] = [];
  domain.onEvent((event) => events.push(event));
  await monitor.execute('stop');
  await sleep(100);
  {
    await using guard = await domain.pause.acquire();
    t.true(guard.foundPaused);
  }
  t.is(await status(guest), 'paused');
  await monitor.execute('cont');
  await sleep(100);
  t.is(await status(guest), 'running');
  const guard = await domain.pause.acquire();
  t.false(guard.foundPaused);
  const { generation } = domain;
  await monitor.execute('cont');
  await domain.state();
  t.false(guard.valid);
  t.not(domain.generation, generation);
  await guard.release();
  t.deepEqual(events, [
    { type: 'paused', byUs: false },
    { type: 'resumed', byUs: false },
    { type: 'paused', byUs: true },
    { type: 'resumed', byUs: false },
  ]);
});

const ENDINGS = [
  ['SIGKILL', (child: ChildProcess) => child.kill('SIGKILL'), 'running'],
  ['SIGTERM', (child: ChildProcess) => child.kill('SIGTERM'), 'running'],
  ['SIGINT', (child: ChildProcess) => child.kill('SIGINT'), 'running'],
  ['exit', undefined, 'running'],
  ['throw', undefined, 'running'],
  ['keep', (child: ChildProcess) => child.kill('SIGKILL'), 'paused'],
] as const;

for (const [how, act, wanted] of ENDINGS) {
  test.serial(`a program that holds a pause ends by ${how}: the guest is ${wanted}`, async (t) => {
    const { guest } = t.context;
    const program = fileURLToPath(new URL('hold-and-die.ts', import.meta.url));
    const child = spawn(process.execPath, [program, guest.sockets.qmp, how], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exit = once(child, 'exit');
    if (act !== undefined) {
      await once(child.stdout!, 'data');
      t.is(await status(guest), 'paused');
      act(child);
    }
    await exit;
    if (wanted === 'running') {
      t.true(await becomes(guest, 'running', 120_000));
    } else {
      t.false(await becomes(guest, 'running', 3_000));
      await (await guest.monitor()).execute('cont');
    }
  });
}

test.serial(
  'a program that holds a pause is stopped by a signal: the guest goes on without it',
  async (t) => {
    const { guest } = t.context;
    const program = fileURLToPath(new URL('hold-and-die.ts', import.meta.url));
    const child = spawn(process.execPath, [program, guest.sockets.qmp, 'wait'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exit = once(child, 'exit');
    await once(child.stdout!, 'data');
    child.kill('SIGSTOP');
    t.true(await becomes(guest, 'running', 120_000));
    child.kill('SIGKILL');
    await exit;
  },
);

test.serial(
  'a program that is stopped while it writes words: the guest stands, and is told because of whom',
  async (t) => {
    const { guest } = t.context;
    const program = fileURLToPath(new URL('hold-and-die.ts', import.meta.url));
    const child = spawn(process.execPath, [program, guest.sockets.qmp, 'keep'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exit = once(child, 'exit');
    await once(child.stdout!, 'data');
    child.kill('SIGSTOP');
    await until('it is stopped', () => isStopped(child.pid!));
    // QEMU serves one client, which is the stopped one.
    await using host = new QemuHost('qemu:', () => [guest.sockets]);
    const [listing] = await host.list();
    t.true('error' in listing!);
    t.like('error' in listing! && listing.standing, { by: 'stopped', pid: child.pid, edit: true });
    child.kill('SIGKILL');
    await exit;
    t.true(await becomes(guest, 'paused', 120_000));
    await using domain = await QemuDomain.attach(guest.sockets, `qemu:unix:${guest.sockets.qmp}`);
    await (await domain.pause.acquire()).release();
    t.true(await becomes(guest, 'running', 120_000));
  },
);

test.serial(
  'a dump taken by QEMU has the registers and the memory that we read from the live guest',
  async (t) => {
    const { guest } = t.context;
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    const monitor = await guest.monitor();
    await using guard = await domain.pause.acquire();
    const file = path.join(guest.directory, 'core');
    await monitor.execute('dump-guest-memory', { paging: false, protocol: `file:${file}` }, 60_000);
    await using dump = new DumpDomain(file);
    const live = await domain.registers.read();
    const dumped = await dump.registers!.read();
    t.is(dumped.length, live.length);
    for (const [index, vcpu] of live.entries()) {
      for (const name of [
        'cr0',
        'cr3',
        'cr4',
        'efer',
        'gsBase',
        'idtBase',
        'idtLimit',
        'rip',
        'rsp',
        'rflags',
        'cpl',
      ] as const) {
        t.is(dumped[index]![name], vcpu[name], name);
      }
    }
    const packed = path.join(guest.directory, 'packed');
    await monitor.execute(
      'dump-guest-memory',
      { paging: false, protocol: `file:${packed}`, format: 'kdump-zlib' },
      60_000,
    );
    await using packedDump = new DumpDomain(packed);
    t.deepEqual(await packedDump.registers!.read(), dumped);
    const ours = new FrameBatch();
    const theirs = new FrameBatch();
    let compared = 0;
    for (const { first, count } of domain.frames.regions()) {
      for (let start = 0; start < count; start += 512) {
        ours.clear();
        for (let i = start; i < Math.min(count, start + 512); i++)
          ours.add(guestFrame(first + i), 0, FRAME_SIZE);
        if (domain.frames.read(ours as FrameBatch<GuestFrame>) > 0) t.fail('frame missing');
        for (const { frames } of [dump, packedDump]) {
          theirs.clear();
          for (let i = 0; i < ours.count; i++) theirs.add(ours.frames[i] as GuestFrame, 0, FRAME_SIZE);
          if (frames.read(theirs) > 0) t.fail('frame missing');
          if (Buffer.compare(ours.bytes.subarray(0, ours.used), theirs.bytes.subarray(0, theirs.used)) !== 0)
            t.fail('differs');
        }
        compared += ours.count;
      }
    }
    t.true(compared > 60_000);
    t.true(guard.valid);
  },
);

test.serial('migrated away: refused on the way, gone afterwards', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const monitor = await guest.monitor();
  // Slowly, so that we meet it under way.
  await monitor.execute('migrate-set-parameters', { 'max-bandwidth': 1024 * 1024 });
  await monitor.execute('migrate', { uri: 'exec:cat > /dev/null' });
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused' });
  t.is(domain.pause.depth, 0);
  t.true(await becomes(guest, 'running', 60_000));
  await monitor.execute('migrate-set-parameters', { 'max-bandwidth': 10 * 2 ** 30 });
  t.true(await becomes(guest, 'postmigrate', 180_000));
  t.is(await domain.state(), 'gone');
  await t.throwsAsync(domain.pause.acquire(), { code: 'domain-gone' });
  // The copy went nowhere, so this one may go on.
  await monitor.execute('cont');
  t.true(await becomes(guest, 'running', 60_000));
});

test.serial('a reset under our pause is told, and the guest comes up again', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const from = guest.console.lines.length;
  const guard = await domain.pause.acquire();
  await (await guest.monitor()).execute('system_reset');
  await until('the guard is void', () => !guard.valid);
  await guard.release();
  await guest.console.waitFor(/GUEST READY/, 240_000, from);
  t.is(await domain.state(), 'running');
  // The firmware has moved its shadows again: what is RAM is known anew.
  const batch = new FrameBatch<GuestFrame>();
  batch.add(guestFrame(0x100), 0, 16);
  t.is(domain.frames.read(batch), 0);
});

test.serial('the memory file is cut off: a typed error, and we live', async (t) => {
  const { guest } = t.context;
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  await domain.pause.acquire();
  await truncate(path.join(guest.directory, 'memory'), FRAME_SIZE * 256);
  const batch = new FrameBatch<GuestFrame>();
  batch.add(guestFrame(0x1), 0, 16);
  t.is(domain.frames.read(batch), 0);
  batch.add(guestFrame(0x8000), 0, 16);
  t.throws(() => domain.frames.read(batch), { code: 'host-unreachable', message: /truncated/ });
  const write = { frame: guestFrame(0x8000), offset: 0, bytes: Buffer.alloc(8) };
  t.throws(() => domain.writeFrames.write([write]), { code: 'memory-fault' });
});

test.serial('QEMU is killed in the middle: every capability says that the domain is gone', async (t) => {
  await using guest = await bootDebian({ name: 'killed', memory: 256, ram: 'memfd', cpus: 1 });
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const gone = new Promise<DomainEvent>((resolve) =>
    domain.onEvent((event) => event.type === 'gone' && resolve(event)),
  );
  const guard = await domain.pause.acquire();
  const pending = domain.registers.read();
  const [result] = await Promise.allSettled([pending, guest.kill()]);
  if (result.status === 'rejected') t.is(result.reason.code, 'domain-gone');
  await gone;
  t.false(guard.valid);
  await guard.release();
  await t.throwsAsync(domain.registers.read(), { code: 'domain-gone' });
  await t.throwsAsync(domain.pause.acquire(), { code: 'domain-gone' });
  const batch = new FrameBatch<GuestFrame>();
  batch.add(guestFrame(0x100), 0, 16);
  t.throws(() => domain.frames.read(batch), { code: 'domain-gone' });
  t.is(await domain.state(), 'gone');
});
