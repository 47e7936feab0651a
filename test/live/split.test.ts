/**
 * The daemon in two processes: who reads guests has no rights, and a broker writes for it. One guest is reached by its process
 * and has QEMU's own memory, one by its monitor and has a memfd; all of ours are killed or stopped at any moment.
 */
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { execa } from 'execa';
import { behindOthers } from './behind-others.ts';
import { runsOn } from './cycles.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

const AS_READER = path.join(import.meta.dirname, 'as-reader.ts');
const KILLS = Number(process.env.DOMSCHED_KILLS ?? 1);
const SOME_TURNS_MS = 250;

const programs = [
  { kind: 'burner', name: 'pacer' },
  { kind: 'burner', name: 'burner' },
  { kind: 'threads', name: 'threads' },
] as const;
const names = programs.map(({ name }) => name);

let directory: string;
let guests: readonly LiveGuest[] = [];
/** `--connect` values. */
let connections: readonly string[] = [];

test.before(async (t) => {
  t.timeout(600_000);
  directory = mkdtempSync(path.join(tmpdir(), 'domsched-split-'));
  // The reader is nobody.
  chmodSync(directory, 0o755);
  const boot = (name: string, ram: 'anonymous' | 'memfd') =>
    bootDebian({
      name,
      programs,
      shellNice: -10,
      cpus: 1,
      ram,
      extra: ['-name', `guest=${name},debug-threads=on`],
    });
  guests = await behindOthers([boot('one', 'anonymous'), boot('two', 'memfd')]);
  t.is(guests.length, 2, 'both are up');
  const [one, two] = guests as [LiveGuest, LiveGuest];
  connections = [`pid:${one.process.pid}`, `qemu:unix:${two.sockets.qmp}`];
});

test.after.always(async () => {
  for (const guest of guests) await guest[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

function statusOf(pid: number, line: string): string {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return new RegExp(`^${line}:\\s*(.*)$`, 'm').exec(status)![1]!.split('\t').join(' ');
}

/** Holds and releases without end: the burner of each guest may run while the other guest's is held, and nobody rests. */
const POLICY = [
  '[[policy]]\ntype = "fair-share"\nselect = [{ comm = ["burner", "threads"] }]\nby = "process"\ncpus = 1\nlead = 0.05',
].join('\n');
const KEYS = 'interval = 0.05\nmaxHold = false\nsplit = true';

test.serial(
  'a reader that was taken over can do nothing to a machine but what the broker checks',
  async (t) => {
    t.timeout(300_000);
    const [one, two] = guests as [LiveGuest, LiveGuest];
    const runtime = mkdtempSync(path.join(tmpdir(), 'domsched-reader-'));
    t.teardown(() => rmSync(runtime, { recursive: true, force: true }));
    const { stdout } = await execa(
      process.execPath,
      [AS_READER, String(one.process.pid), String(two.process.pid), two.sockets.qmp],
      { env: { DOMSCHED_RUNTIME_DIR: runtime }, timeout: 120_000 },
    );
    const said = JSON.parse(stdout) as Record<string, unknown>;
    t.deepEqual(said, {
      Uid: '65534 65534 65534 65534',
      CapPrm: '0000000000000000',
      CapEff: '0000000000000000',
      NoNewPrivs: '1',
      reads: 384 * 1024 * 1024,
      'opens its memory for writing': 'EACCES',
      'opens its mappings for writing': 'EACCES',
      files: 6,
      'opens mem anew': 'EACCES',
      'opens maps anew': 'EACCES',
      'opens pagemap anew': 'EACCES',
      'writes by what was handed over': 'EBADF',
      process_vm_writev: 'host-unreachable',
      'traces it': 'EPERM',
      'connects to its monitor': 'EACCES',
      'opens another socket': 'domain-not-found',
      'opens by its process what has a monitor': 'domain-not-found',
      'signals it': 'EPERM',
      'signals the broker': 'EPERM',
      'becomes root': 'EPERM',
      'writes frames': 'refused',
      'edits what runs': 'edit-conflict',
      'edits in the pause of a look': 'edit-conflict',
      'another old word': 'edit-conflict',
      'outside of RAM': 'frame-unmapped',
      'one of two outside of RAM': 'frame-unmapped',
      'too many words': 'protocol',
      'across two frames': 'protocol',
      'two words that overlap': 'refused',
      'of another machine': 'edit-conflict',
      'RAM elsewhere than its monitor tells': 'refused',
      'of a machine that is not open': 'domain-not-found',
      'that is not harmless in parts': 'refused',
      'RAM elsewhere': 'refused',
      unchanged: true,
      'the edit itself': 'done: null',
      changed: true,
      back: true,
      registers: 1,
      'another old word by the monitor': 'edit-conflict',
      'the edit by the monitor': 'done: null',
      'changed by the monitor': true,
      'back by the monitor': 'done: null',
      'records another place': 'refused',
      'asks for what there is not': 'protocol',
    });
    for (const guest of guests) await runsOn(guest, ...names);
  },
);

test.serial(
  'a policy holds and releases through the broker; the daemon has no rights, and the broker has them',
  async (t) => {
    t.timeout(600_000);
    const [one, two] = guests as [LiveGuest, LiveGuest];
    await using daemon = new DaemonProcess(directory, connections);
    const file = path.join(daemon.env.DOMSCHED_RUNTIME_DIR!, 'reader', 'split.trace');
    const trace = `[trace]\nfile = "${file}"`;
    const keys = 'interval = 0.1\nmaxHold = false\nsplit = true';
    await daemon.configure(
      `${trace}\n[[policy]]\ntype = "idle-only"\nselect = [{ domain = "one", comm = "burner" }]\nignore = [{ domain = "one" }]`,
      keys,
    );
    daemon.start();
    await daemon.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held');
    const running = (await daemon.logs(({ msg }) => msg === 'running')) as unknown as { broker: number };
    t.is(statusOf(daemon.pid!, 'Uid'), '65534 65534 65534 65534');
    for (const name of ['CapPrm', 'CapEff', 'CapInh', 'CapAmb'])
      t.regex(statusOf(daemon.pid!, name), /^0+$/, name);
    t.is(statusOf(running.broker, 'Uid'), '0 0 0 0');
    // On a busy host two looks idle now and then, and the policy lets it run for a moment.
    await until('it stands while others go on', async () => {
      const before = await one.progress('burner');
      for (let i = 0; i < 3; i++) await runsOn(one, 'pacer');
      await runsOn(two, ...names);
      return (await one.progress('burner')).burner === before.burner;
    });
    // An operator's word goes the same way.
    await daemon.domsched('release', 'one', 'burner');
    await runsOn(one, 'burner');
    await daemon.domsched('hold', 'two', 'threads');
    const { threads } = await two.progress('threads');
    await runsOn(two, 'burner');
    t.is((await two.progress('threads')).threads, threads);
    // The reader takes another configuration by itself, but for what takes root.
    const readAgain = async (rest: string, wanted: RegExp) => {
      const from = daemon.logged();
      await daemon.configure(rest, keys);
      daemon.signal('SIGHUP');
      await daemon.logs(({ msg }) => wanted.test(msg), from);
    };
    await readAgain(`${trace}\n[http]`, /^the configuration stays as it was$/);
    await readAgain(trace, /^configuration read again$/);
    // Without the policy it is an operator's word alone that holds anybody.
    await runsOn(one, 'burner');
    t.is((await two.progress('threads')).threads, threads);
    t.is(statSync(file).uid, 65_534, 'the trace is the reader’s own');
    const lines = readFileSync(file, 'utf8');
    t.true(lines.startsWith('{"format":"domsched-trace/1"'));
    t.true(lines.includes('"comm":"burner"'));
    t.is(await daemon.end('SIGTERM'), 0, 'everything was put back');
    for (const guest of guests) await runsOn(guest, ...names);
    t.deepEqual(daemon.remains(), { held: [], edits: [] });
    await until('the broker has ended', () => !isThere(running.broker));
    for (const guest of guests) guest.checkConsole();
  },
);

for (const which of ['reader', 'broker', 'both', 'reader stopped'] as const) {
  test.serial(`${which}, at any moment: no machine stands still, and nobody stays held`, async (t) => {
    t.timeout(900_000);
    await using daemon = new DaemonProcess(directory, connections);
    await daemon.configure(POLICY, KEYS);
    for (let kill = 0; kill < KILLS; kill++) {
      const from = daemon.logged();
      const child = daemon.start();
      const { broker } = (await daemon.logs(({ msg }) => msg === 'running', from)) as unknown as {
        broker: number;
      };
      await daemon.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held', from);
      await sleep(Math.random() * SOME_TURNS_MS);
      const ended = once(child, 'exit');
      if (which === 'reader stopped') {
        process.kill(child.pid!, 'SIGSTOP');
        // Whoever was about to be edited goes on without it.
        for (const guest of guests) await runsOn(guest, 'pacer');
        process.kill(child.pid!, 'SIGKILL');
      } else {
        if (which !== 'broker') process.kill(child.pid!, 'SIGKILL');
        if (which !== 'reader') process.kill(broker, 'SIGKILL');
      }
      const [code] = (await ended) as [number | null];
      if (which === 'broker') t.is(code, 1, 'the daemon ends too, and says that it failed');
      // An edit of any kind is made under a pause by the monitor: if it was cut short, the guest stands until the next start.
      const going = which === 'reader' || which === 'reader stopped' ? guests : guests.slice(0, 1);
      for (const guest of going) await runsOn(guest, 'pacer');
      await until('the broker has ended', () => !isThere(broker));
      if (which === 'reader' && kill % 2 === 0) {
        // The next start answers for what this one held, and puts it back.
        const next = daemon.logged();
        daemon.start();
        await daemon.logs(({ msg }) => msg === 'running', next);
        t.is(await daemon.end('SIGTERM'), 0);
      } else await daemon.letAllGo();
      for (const guest of guests) await runsOn(guest, ...names);
      t.deepEqual(daemon.remains(), { held: [], edits: [] });
    }
    for (const guest of guests) guest.checkConsole();
  });
}

function isThere(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}
