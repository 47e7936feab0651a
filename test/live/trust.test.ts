/** Attacks on what we promise of an edit: that the guest stands still meanwhile, and that it is this guest. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import anyTest, { type TestFn } from 'ava';
import { requireKernel } from '../../kernels/cache.ts';
import { Draft } from '../../runtime/edit/draft.ts';
import { commit } from '../../runtime/edit/transaction.ts';
import { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { guestFrame } from '../../runtime/hypervisor/frame.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { asRecord } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import type { FrameWrite } from '../../runtime/hypervisor/types.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { advance } from '../../runtime/memory/address.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { holesOf } from '../../runtime/technique/park/scratch.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, goesOn } from './cycles.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

const test = anyTest as TestFn<{ guest: LiveGuest }>;
const EDITS_MS = 8_000;
/** What a client does at random, and how long it waits before the next, in ms at most. */
const MOST_WAIT_MS = 6;

test.before(async (t) => {
  t.context.guest = await bootDebian({
    name: 'trust',
    memory: 256,
    programs: [
      { kind: 'burner', name: 'one' },
      { kind: 'burner', name: 'two' },
    ],
    shellNice: -10,
    devices: (directory) => {
      const snapshots = path.join(directory, 'snapshots');
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', snapshots, '1M']);
      return [
        ...['-qmp', `unix:${path.join(directory, 'other.sock')},server=on,wait=off`],
        ...['-drive', `if=none,format=qcow2,file=${snapshots}`],
      ];
    },
  });
});
test.after.always((t) => t.context.guest?.[Symbol.asyncDispose]());

async function status(guest: LiveGuest): Promise<unknown> {
  return asRecord(await (await guest.monitor()).execute('query-status'))?.status;
}

/** An edit that does the guest no harm, torn or not: of a word that no member covers. */
async function harmless(domain: QemuDomain) {
  const guest = await Guest.attach(domain, await knownKernels());
  const processes = await processesOf(guest);
  const hole = holesOf(guest.layout, 'task_struct').find(
    ({ owner, offset, size }) => owner === 'task_struct' && size >= 8 && offset % 8 === 0,
  )!;
  const at = advance(findProcess(processes, 'two').address, hole.offset);
  const plan = () => {
    const draft = new Draft(guest.space);
    draft.set(at, 8, draft.word(at, 8) ^ 1n, 'a word of padding');
    return draft.edit('of a word of padding', [], []);
  };
  return { guest, plan };
}

/** Stands for libvirt or an operator: stops and resumes at random, and notes when QEMU says that it did, in µs. */
class OtherClient implements AsyncDisposable {
  readonly events: { readonly running: boolean; readonly at: number }[] = [];
  readonly #socket: Socket;
  readonly #end = new AbortController();
  readonly #done: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) this.#hear(line);
    });
    this.#done = this.#disturb();
  }

  static async connect(file: string): Promise<OtherClient> {
    const socket = createConnection(file);
    await once(socket, 'connect');
    return new OtherClient(socket);
  }

  #hear(line: string): void {
    const { event, timestamp } = JSON.parse(line);
    if (event !== 'STOP' && event !== 'RESUME') return;
    this.events.push({ running: event === 'RESUME', at: timestamp.seconds * 1e6 + timestamp.microseconds });
  }

  async #disturb(): Promise<void> {
    this.#say('qmp_capabilities');
    while (!this.#end.signal.aborted) {
      this.#say('stop');
      await sleep(Math.random() * MOST_WAIT_MS);
      this.#say('cont');
      await sleep(Math.random() * MOST_WAIT_MS);
    }
  }

  #say(execute: string): void {
    this.#socket.write(JSON.stringify({ execute }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#done;
    await sleep(200);
    this.#socket.destroy();
  }
}

/** What has to be added to `performance.now()` for QEMU's clock, in µs: read as the clock of ms goes on. */
function clockOffset(): number {
  const from = Date.now();
  for (;;) {
    const now = Date.now();
    if (now !== from) return (now - performance.now()) * 1000;
  }
}

test.serial(
  'beside a client that stops and resumes at random, no commit meets a running guest',
  async (t) => {
    const { guest: live } = t.context;
    await using domain = await QemuDomain.attach(live.sockets, live.connection);
    const { guest, plan } = await harmless(domain);
    const offset = clockOffset();
    const now = () => performance.now() * 1000 + offset;
    const times: { begin: number; end: number }[] = [];
    const { writeFrames } = domain;
    const timed = Object.assign(Object.create(domain), {
      writeFrames: {
        write(writes: readonly FrameWrite<never>[]) {
          const begin = now();
          writeFrames.write(writes);
          times.push({ begin, end: now() });
        },
      },
    });
    const counts: Record<string, number> = {};
    const committed: { begin: number; end: number }[] = [];
    const client = await OtherClient.connect(path.join(live.directory, 'other.sock'));
    const limit = performance.now() + EDITS_MS;
    while (performance.now() < limit) {
      let outcome = 'committed';
      try {
        await using guard = await domain.pause.acquire();
        await commit(timed, guest.space, guard, plan());
        committed.push(times.at(-1)!);
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        outcome = error.code;
      }
      counts[outcome] = (counts[outcome] ?? 0) + 1;
    }
    await client[Symbol.asyncDispose]();
    const { events } = client;
    const resumes = events.filter(({ running }) => running).length;
    const running = committed.filter(({ begin, end }) => {
      const last = events.findLast(({ at }) => at <= begin);
      return last?.running || events.some(({ running, at }) => running && at > begin && at < end);
    });
    t.log(
      `${JSON.stringify(counts)}, beside ${resumes} resumes; of ${committed.length} commits ${running.length} met one`,
    );
    t.true(committed.length > 0 && resumes > 50);
    t.deepEqual(running, []);
    t.deepEqual(
      Object.keys(counts).filter((code) => !['committed', 'edit-conflict', 'edit-torn'].includes(code)),
      [],
    );
    await (await live.monitor()).execute('cont');
    guest.detach();
    await goesOn(t, live, await live.progress('one', 'two'));
    live.checkConsole();
  },
);

test.serial('a paused machine under migration is neither held nor written', async (t) => {
  const { guest: live } = t.context;
  await using domain = await QemuDomain.attach(live.sockets, live.connection);
  const { guest, plan } = await harmless(domain);
  const surgeon = new Surgeon(domain, guest, holderFor(guest));
  const one = findProcess(await processesOf(guest), 'one');
  const monitor = await live.monitor();
  await monitor.execute('migrate-set-parameters', { 'max-bandwidth': 1024 * 1024 });
  const guard = await domain.pause.acquire();
  await monitor.execute('migrate', { uri: 'exec:cat > /dev/null' });
  const edit = plan();
  await t.throwsAsync(commit(domain, guest.space, guard, edit), {
    code: 'refused',
    message: /migrated or saved.*nothing was written/,
  });
  await guard.release();
  await monitor.execute('stop');
  await t.throwsAsync(surgeon.hold(one), { code: 'refused', message: /migrated or saved/ });
  t.is(await status(live), 'paused');
  await monitor.execute('migrate_cancel');
  await until('the migration is over', async () => {
    return asRecord(await monitor.execute('query-migrate'))?.status === 'cancelled';
  });
  await monitor.execute('cont');
  t.is((await surgeon.hold(one)).outcome, 'held');
  t.is((await surgeon.release(one)).outcome, 'released');
  guest.detach();
  live.checkConsole();
});

test.serial(
  'a domain reverted to a snapshot in which somebody is held: he is found in the guest, and let go before all is well',
  async (t) => {
    t.timeout(300_000);
    const { guest: live } = t.context;
    const monitor = await live.monitor();
    // What it prints is what went wrong.
    const hmp = async (line: string) =>
      t.is(await monitor.execute('human-monitor-command', { 'command-line': line }), '');
    const directory = mkdtempSync(path.join(tmpdir(), 'domsched-reverted-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    await using daemon = new DaemonProcess(directory, [live.connection]);
    await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
    await daemon.configure('');
    daemon.start();
    await using control = await daemon.control();
    await until('it is attached', async () => (await control.status()).domains[0]?.attached === true);
    const one = { domain: 'trust', process: 'one' };
    t.is((await control.hold(one)).outcome, 'held');
    await hmp('savevm held');
    t.is((await control.release(one)).outcome, 'released');
    t.deepEqual(daemon.remains().held, []);
    await goesOn(t, live, await live.progress('one'));
    await hmp('loadvm held');
    const before = await live.progress('one', 'two');
    await goesOn(t, live, { two: before.two! });
    t.is((await live.progress('one')).one, before.one, 'held again, and no record of it');

    const from = daemon.logged();
    t.is(await daemon.end('SIGTERM'), 0);
    await goesOn(t, live, await live.progress('one', 'two'));
    const said = daemon.log(from).map(({ msg, comm }) => (comm === undefined ? msg : `${msg} ${comm}`));
    const found = said.indexOf('taken over one');
    t.true(found >= 0, said.join('\n'));
    t.true(said.indexOf('everything was put back, and no guest holds anybody') > found, said.join('\n'));
    t.deepEqual(daemon.remains(), { held: [], edits: [] });
    live.checkConsole();
  },
);

test.serial('a guest in S3 is not written, whether it sleeps or wakes up meanwhile', async (t) => {
  const { guest: live } = t.context;
  await using domain = await QemuDomain.attach(live.sockets, live.connection);
  const { guest, plan } = await harmless(domain);
  const monitor = await live.monitor();
  await live.run('(sleep 1; echo mem > /sys/power/state) >/dev/null 2>&1 </dev/null &');
  await until('it sleeps', async () => (await status(live)) === 'suspended');
  const guard = await domain.pause.acquire();
  const edit = plan();
  await t.throwsAsync(commit(domain, guest.space, guard, edit), { code: 'refused', message: /S3/ });
  await monitor.execute('system_wakeup');
  await until('it is awake', async () => (await status(live)) === 'running');
  await t.throwsAsync(commit(domain, guest.space, guard, edit), { code: 'edit-conflict' });
  t.false(guard.valid);
  await guard.release();
  // Its serial port loses what comes while it wakes up.
  await until('its shell answers', () =>
    live.run('true', 2_000).then(
      () => true,
      () => false,
    ),
  );
  guest.detach();
  await goesOn(t, live, await live.progress('one', 'two'));
  live.checkConsole();
});

test.serial(
  'two machines whose memory files have one name and one number, each in its own mount namespace',
  async (t) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'domsched-spaces-'));
    const shared = path.join(directory, 'memory');
    mkdirSync(shared);
    const machines: ChildProcess[] = [];
    execFileSync('mount', ['-t', 'tmpfs', 'none', shared]);
    const start = async (name: string, wrap: readonly string[]) => {
      const qmp = path.join(directory, `${name}.sock`);
      const ram = `memory-backend-file,id=ram,size=64M,share=on,mem-path=${path.join(shared, 'ram')}`;
      const [program, ...words] = [
        ...wrap,
        ...['qemu-system-x86_64', '-name', name, '-accel', 'tcg', '-S', '-m', '64', '-object', ram],
        ...['-machine', 'q35,memory-backend=ram', '-nodefaults', '-display', 'none'],
        ...['-qmp', `unix:${qmp},server=on,wait=off`],
      ];
      const child = spawn(program!, words, { stdio: 'ignore' });
      machines.push(child);
      await until(`${name} is there`, () => existsSync(qmp));
      return { qmp, pid: child.pid! };
    };
    try {
      // Where we look, the name leads to the file of the other one.
      const theirs = await start('theirs', []);
      const script = 'mount -t tmpfs none "$0" && exec "$@"';
      const own = ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, shared];
      const mine = await start('mine', own);
      const domains: QemuDomain[] = [];
      for (const { qmp } of [mine, theirs]) {
        domains.push(await QemuDomain.attach({ qmp }, `qemu:unix:${qmp}`));
      }
      const files = [mine, theirs].map(({ pid }) => {
        const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
        const [, , , device, inode] = lines.find((line) => line.endsWith('/ram'))!.split(/\s+/);
        return { device, inode };
      });
      t.is(files[0]!.inode, files[1]!.inode, 'the numbers are the same');
      t.not(files[0]!.device, files[1]!.device);
      domains[0]!.writeFrames.write([{ frame: guestFrame(3), offset: 0, bytes: Buffer.from('mine') }]);
      const read = ({ pid }: { pid: number }) =>
        execFileSync('nsenter', [
          '-m',
          '-t',
          String(pid),
          'head',
          '-c',
          '12292',
          path.join(shared, 'ram'),
        ]).subarray(12288);
      t.is(read(mine).toString(), 'mine');
      t.is(read(theirs).toString(), '\0\0\0\0');
      for (const domain of domains) await domain.close();
    } finally {
      for (const machine of machines) {
        const gone = once(machine, 'exit');
        machine.kill('SIGKILL');
        await gone;
      }
      execFileSync('umount', [shared]);
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
