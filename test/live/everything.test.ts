/**
 * Everything at once: a daemon with random policies over three guests of different kernels, full of processes that
 * fork, execute, exit and are killed. Meanwhile the daemon is killed, alone or with all of its processes; others stop,
 * resume, save, restore and reset the machines; commands are given and killed; the journal's disk is full. At the end
 * nobody may be left held, and the guests themselves say so. DOMSCHED_STORM_SECONDS=3600 is a soak,
 * DOMSCHED_STORM_SEED repeats the choices of a run, but not its moments.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { constants, setPriority, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { ExecaError } from 'execa';
import { testGroups } from '../runtime/hypervisor/vmm/own-groups.ts';
import { PATIENCE_MS } from './cycles.ts';
import { DaemonProcess, type LogLine } from './daemon-process.ts';
import { Dice } from './dice.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { bootO1, buildO1, kernelFile, numbers, type O1Guest } from './o1.ts';
import { until } from './until.ts';

const SECONDS = Number(process.env.DOMSCHED_STORM_SECONDS ?? 30);
const SEED = Number(process.env.DOMSCHED_STORM_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** A reset takes as long as a boot: too long for the short form of the test. */
const RESETS_DEBIAN = SECONDS >= 300;
const REPORT_EVERY_MS = 120_000;
/** Longer than an edit takes, and than one is waited for. */
const AN_EDIT_MS = 1;
const SEES_EDIT_MS = 400;
const SNAPSHOT = 'then';

const loads = [
  { kind: 'burner', name: 'burner' },
  { kind: 'sleeper', name: 'sleeper' },
  { kind: 'pipe', name: 'pipe' },
  { kind: 'threads', name: 'threads' },
  { kind: 'forker', name: 'forker' },
  { kind: 'storm', name: 'storm' },
] as const;
const debianNames = loads.map(({ name }) => name);
const o1Names = ['pi1', 'pi2', 'pi3'];
const subjects = [
  'burner',
  'sleeper',
  'pipe',
  'echo',
  'threads',
  'forker',
  'storm',
  'stormed',
  'pi*',
  'pair',
];
const selected = `select = [{ comm = ${JSON.stringify(subjects)} }]`;

/** Everybody is held and let go again at random. The seed is of the test, so that no two daemons do the same. */
const RANDOM = `export default ({ seed }) => ({ subjects }, memory = { state: seed, held: [] }) => {
  let { state } = memory;
  const random = () => {
    state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const before = new Set(memory.held);
  const held = [...subjects].filter((key) => before.has(key) ? random() < 0.7 : random() < 0.3);
  const niced = [...subjects].filter(() => random() < 0.1);
  return { memory: { state, held }, actions: [
    ...held.map((process) => ({ type: 'hold', process, reason: 'at random' })),
    ...niced.map((process) => ({ type: 'nice', process, nice: Math.floor(random() * 20), reason: 'at random' })),
  ] };
};`;

/** One of the three guests: what others may do to it, and what it says of itself. */
interface StormGuest {
  readonly name: string;
  readonly connection: string;
  readonly pid: number;
  /** Another client's QMP command. */
  readonly qmp: (command: string, args?: Record<string, unknown>) => Promise<unknown>;
  readonly reset: (() => Promise<void>) | undefined;
  /** Programs that run until the end, and what they have counted. */
  readonly names: readonly string[];
  readonly progress: () => Promise<Record<string, number>>;
  /** Ends what is not to run until the end; what cannot be killed stays, and is an error. */
  readonly calm: () => Promise<void>;
  readonly checkConsole: () => void;
  snapshots: boolean;
  /** A snapshot was loaded. */
  reverted: boolean;
}

function disk(directory: string, name: string): string[] {
  const file = path.join(directory, `${name}.qcow2`);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
  return ['-drive', `if=none,format=qcow2,file=${file}`];
}

function debianGuest(guest: LiveGuest, connection: string): StormGuest {
  const qmp = async (command: string, args?: Record<string, unknown>) =>
    (await guest.monitor()).execute(command, args ?? {}, PATIENCE_MS);
  const names = debianNames.filter((name) => name !== 'storm');
  return {
    name: guest.name,
    connection,
    pid: guest.process.pid!,
    qmp,
    reset: RESETS_DEBIAN
      ? async () => {
          guest.checkConsole();
          const from = guest.console.lines.length;
          await qmp('set-action', { reboot: 'reset' });
          await qmp('system_reset');
          await guest.console.waitFor(/GUEST READY/, 240_000, from);
          guest.console.booted();
          await until(`${guest.name}: its shell answers`, () =>
            guest.run('true', 2_000).then(
              () => true,
              () => false,
            ),
          );
        }
      : undefined,
    names,
    progress: () => guest.progress(...names),
    calm: async () => {
      await guest.run('touch /run/calm');
      const left = () =>
        guest.run("cat /proc/[0-9]*/comm 2>/dev/null | grep -cE '^(storm|stormed)$' || true");
      await until(`${guest.name}: the storm is over`, async () => Number(await left()) === 0);
      await guest.run('rm /run/calm');
    },
    checkConsole: () => guest.checkConsole(),
    snapshots: false,
    reverted: false,
  };
}

function o1Guest(guest: O1Guest, connection: string): StormGuest {
  const boots = () => guest.lines.filter((line) => line.includes('boot complete')).length;
  return {
    name: 'old',
    connection,
    pid: guest.pid,
    qmp: (command, args) => guest.qmp(command, args),
    reset: async () => {
      const before = boots();
      await guest.qmp('set-action', { reboot: 'reset' });
      await guest.qmp('system_reset');
      await until('old: it boots again', () => boots() > before);
    },
    names: o1Names,
    progress: async () =>
      Object.fromEntries(
        o1Names.map((name) => {
          const line = guest.lines.findLast((text) => text.startsWith(`${name} `));
          return [name, line === undefined ? 0 : numbers(line).progress!];
        }),
      ),
    calm: async () => {},
    checkConsole() {
      // QEMU's translator itself may lose what a program had in registers: see migration.test.ts.
      const wrong = this.reverted ? /BUG|exception/ : /BUG|exception|errors=[1-9]/;
      const trouble = guest.lines.filter((line) => wrong.test(line));
      if (trouble.length > 0) throw new Error(`old: ${trouble.slice(0, 10).join('\n')}`);
    },
    snapshots: false,
    reverted: false,
  };
}

/** What happens to the guests and to us, at random, and how often it did. */
class Everything {
  readonly counts = new Map<string, number>();
  readonly #daemon: DaemonProcess;
  readonly #members: readonly StormGuest[];
  readonly #end = performance.now() + SECONDS * 1000;
  readonly #seed: number;
  /** When the disk was full last. */
  #fullAt = Number.NEGATIVE_INFINITY;

  constructor(daemon: DaemonProcess, members: readonly StormGuest[], seed: number) {
    this.#daemon = daemon;
    this.#members = members;
    this.#seed = seed;
  }

  async run(): Promise<void> {
    const report = setInterval(() => console.log(`# ${this.summary()}`), REPORT_EVERY_MS);
    try {
      await Promise.all([this.#daemons(new Dice(this.#seed)), this.#others(new Dice(~this.#seed))]);
    } finally {
      clearInterval(report);
    }
  }

  summary(): string {
    return [...this.counts]
      .sort(([a], [b]) => a.localeCompare(b, 'en'))
      .map(([what, count]) => `${what} ${count}`)
      .join(', ');
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  get #isOver(): boolean {
    return performance.now() > this.#end;
  }

  /** One daemon after another, each of which ends in another way. */
  async #daemons(dice: Dice): Promise<void> {
    const daemon = this.#daemon;
    while (!this.#isOver) {
      await daemon.configure(...randomPolicies(dice));
      const from = daemon.logged();
      const started = performance.now();
      const child = daemon.start();
      const isAttached = () =>
        child.exitCode !== null || daemon.log(from).some(({ msg }) => msg === 'attached');
      if (dice.next() < 0.85) await until('the daemon is at work', isAttached, PATIENCE_MS, 10);
      await sleep(dice.next() * 2_000);
      // Before it listens for it, this would end it.
      if (dice.next() < 0.4 && child.exitCode === null && daemon.log(from).length > 0) {
        await daemon.configure(...randomPolicies(dice));
        daemon.signal('SIGHUP');
        this.count('SIGHUP');
        await sleep(dice.next() * 1_500);
      }
      if (child.exitCode !== null) {
        // Without room it does not start.
        if (this.#fullAt < started) throw new Error(`the daemon ended by itself, with ${child.exitCode}`);
        this.count('daemon refused to start on a full disk');
        await daemon.end('SIGKILL');
        await sleep(200);
        continue;
      }
      const way = dice.weighted({ kill: 3, killInEdit: 4, killGroup: 4, SIGTERM: 3 });
      if (way === 'killInEdit' && daemon.seesEdit(SEES_EDIT_MS)) spin(AN_EDIT_MS * dice.next());
      if (way === 'killGroup') {
        for (const pid of shuffled(dice, [child.pid!, ...childrenOf(child.pid!)])) kill(pid);
      }
      const code = await daemon.end(way === 'SIGTERM' ? 'SIGTERM' : 'SIGKILL');
      this.count(way === 'SIGTERM' ? `daemon SIGTERM, exit ${code}` : `daemon ${way}`);
      if (dice.next() < 0.5) await sleep(dice.next() * 500);
    }
  }

  /** What others do: to the machines, to the disk, and by commands of ours. */
  async #others(dice: Dice): Promise<void> {
    while (!this.#isOver) {
      await sleep(dice.next() * 400);
      const member = dice.one(this.#members);
      const event = dice.weighted({
        stop: 8,
        savevm: 2,
        loadvm: 3,
        reset: 1,
        full: 1,
        command: 6,
        killed: 2,
      });
      if (event === 'stop') {
        await member.qmp('stop');
        await sleep(dice.next() * 300);
        await member.qmp('cont');
        this.count(`${member.name}: stop and cont`);
      } else if (event === 'savevm') await this.#save(member);
      else if (event === 'loadvm') await this.#load(member);
      else if (event === 'reset') await this.#reset(member);
      else if (event === 'full') await this.#fillDisk(500 + dice.next() * 1_500);
      else await this.#command(dice, member, event === 'killed');
    }
  }

  async #save(member: StormGuest): Promise<void> {
    await monitor(member, `savevm ${SNAPSHOT}`);
    member.snapshots = true;
    this.count(`${member.name}: savevm`);
  }

  async #load(member: StormGuest): Promise<void> {
    if (!member.snapshots) return this.#save(member);
    member.reverted = true;
    await monitor(member, `loadvm ${SNAPSHOT}`);
    this.count(`${member.name}: loadvm`);
  }

  async #reset(member: StormGuest): Promise<void> {
    if (member.reset === undefined) return;
    await member.reset();
    this.count(`${member.name}: reset`);
  }

  async #fillDisk(ms: number): Promise<void> {
    const file = path.join(this.#daemon.env.DOMSCHED_RUNTIME_DIR!, 'filler');
    this.#fullAt = Number.POSITIVE_INFINITY;
    try {
      for (let size = 2 ** 16; size > 0; size >>= 1) {
        for (let isFull = false; !isFull; ) {
          try {
            writeFileSync(file, Buffer.alloc(size), { flag: 'a' });
          } catch {
            isFull = true;
          }
        }
      }
      this.count('full disk');
      await sleep(ms);
    } finally {
      rmSync(file, { force: true });
      this.#fullAt = performance.now();
    }
  }

  async #command(dice: Dice, member: StormGuest, isKilled: boolean): Promise<void> {
    const name = dice.one(member.names);
    const [verb, ...rest] = dice.one([
      ['hold'],
      ['release'],
      ['release'],
      ['renice', String(dice.below(20))],
    ] as const);
    const all = verb === 'release' && dice.next() < 0.3;
    const target = all ? ['--all'] : [member.name, name];
    const connect = this.#members.flatMap(({ connection }) => ['--connect', connection]);
    const command = this.#daemon.domsched(verb, ...target, ...rest, '--timeout', '5', ...connect);
    const what = `command ${verb}${all ? ' --all' : ''}`;
    if (isKilled) {
      await sleep(200 + dice.next() * 800);
      command.kill('SIGKILL');
    }
    try {
      await command;
      this.count(`${what} done`);
    } catch (error) {
      if (!(error instanceof ExecaError)) throw error;
      if (error.signal === 'SIGKILL' && isKilled) this.count(`${what} killed`);
      else if ((error.exitCode === 1 || error.exitCode === 3) && !/^\s+at /m.test(String(error.stderr)))
        this.count(`${what} failed`);
      else throw error;
    }
  }
}

/** A line in QEMU's own monitor, as an operator would type it. @throws Error with what it says */
async function monitor(member: StormGuest, line: string): Promise<void> {
  const said = await member.qmp('human-monitor-command', { 'command-line': line });
  if (said !== '') throw new Error(`${member.name}: ${line}: ${said}`);
}

/** What the daemon is told to do, and how. */
function randomPolicies(dice: Dice): [policies: string, keys: string] {
  const module = `[[policy]]\ntype = "module"\nmodule = "random.mjs"\noptions = { seed = ${1 + dice.below(2 ** 31 - 1)} }\n${selected}`;
  const policies = dice.weighted({ random: 6, idle: 1, io: 1, share: 1, priority: 1, fair: 1, none: 1 });
  const others = {
    random: module,
    idle: `[[policy]]\ntype = "idle-only"\n${selected}\nquiet = 0.1`,
    io: `[[policy]]\ntype = "io"\n${selected}\nprotect = [{ comm = "burner" }]\nwindow = 0.5`,
    share: `[[policy]]\ntype = "proportional-share"\n${selected}\nshares = [{ domain = "one", weight = 4 }]\nby = "process"\nlead = 0.05`,
    priority: `[[policy]]\ntype = "priority"\n${selected}\norder = [{ comm = "pi*" }, { comm = "pipe" }, { comm = "*" }]`,
    fair: `[[policy]]\ntype = "fair-share"\n${selected}\nlead = 0.05`,
    none: '',
  };
  const keys = [
    `interval = ${dice.one([0.02, 0.02, 0.05, 0.2])}`,
    `technique = "${dice.weighted({ auto: 8, park: 2, splice: 1, state: 1 })}"`,
    `maxHold = ${dice.one(['false', '1', '2'])}`,
    'slice = 0.05',
  ];
  return [others[policies], keys.join('\n')];
}

function shuffled<T>(dice: Dice, from: readonly T[]): T[] {
  return from
    .map((value) => ({ value, place: dice.next() }))
    .sort((a, b) => a.place - b.place)
    .map(({ value }) => value);
}

function childrenOf(pid: number): number[] {
  try {
    const tasks = readdirSync(`/proc/${pid}/task`);
    return tasks.flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8')
        .trim()
        .split(' ')
        .filter(Boolean)
        .map(Number),
    );
  } catch {
    return [];
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

/** Waits without letting go of the CPU: no timer is as quick. */
function spin(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

/** Everything that a guest runs goes on, by what it says itself, and what can be killed dies. */
async function areFree(t: ExecutionContext, member: StormGuest): Promise<void> {
  const before = await member.progress();
  const waiting = new Set(member.names);
  await until(`${member.name}: everybody goes on`, async () => {
    const now = await member.progress();
    for (const name of waiting) if (now[name] !== before[name]) waiting.delete(name);
    return waiting.size === 0;
  }).catch((error: unknown) => t.fail(`${error}: ${[...waiting]} of ${member.name} do not`));
  await member.calm();
  member.checkConsole();
}

test.serial('everything at once: nobody is left held, by the guests’ own word', async (t) => {
  t.timeout(SECONDS * 2_000 + 900_000);
  console.log(`# DOMSCHED_STORM_SEED=${SEED}, ${SECONDS} s`);
  const directory = mkdtempSync(path.join(tmpdir(), 'domsched-everything-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  await buildO1();
  const socket = path.join(directory, 'old.sock');
  const booting = [
    bootDebian({ name: 'one', memory: 160, programs: loads, shellNice: -10, extra: disk(directory, 'one') }),
    bootDebian({
      name: 'two',
      kernel: 'debian-6.12-cloud',
      memory: 160,
      cpus: 1,
      ram: 'memfd',
      programs: loads,
      shellNice: -10,
      extra: ['-name', 'guest=two,debug-threads=on', ...disk(directory, 'two')],
    }),
  ] as const;
  const old = stack.use(
    await bootO1({
      name: 'old',
      commandLine: 'report=100 run=pi1,pi2,pi3:5,sleeper,pair,forker',
      extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`, ...disk(directory, 'old')],
    }),
  );
  const booted = await Promise.allSettled(booting);
  for (const each of booted) if (each.status === 'fulfilled') stack.use(each.value);
  const [one, two] = await Promise.all(booting);
  const members = [
    debianGuest(one, one.connection),
    debianGuest(two, `pid:${two.process.pid}`),
    o1Guest(old, `qemu:unix:${socket}`),
  ];
  // Most of the time is the start of daemons and commands.
  for (const { pid } of members) {
    for (const thread of readdirSync(`/proc/${pid}/task`))
      setPriority(Number(thread), constants.priority.PRIORITY_BELOW_NORMAL);
  }
  // Under a freezer every technique can be had where there is no monitor.
  for (const group of testGroups('everything')) stack.use(group).add(two.process.pid!);

  const daemon = stack.use(
    new DaemonProcess(
      directory,
      members.map(({ connection }) => connection),
    ),
  );
  const run = daemon.env.DOMSCHED_RUNTIME_DIR!;
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k,mode=700', 'none', run]);
  stack.defer(() => void execFileSync('umount', ['-l', run]));
  await daemon.extract(kernelFile('base'));
  await writeFile(path.join(directory, 'random.mjs'), RANDOM);

  const everything = new Everything(daemon, members, SEED);
  await everything.run();

  t.regex(await daemon.letAllGo(), /nothing is held/);
  t.deepEqual(daemon.remains(), { held: [], edits: [] });
  for (const member of members) await areFree(t, member);
  const log = daemon.log();
  for (const line of [...eventsOf(log), everything.summary()]) t.log(line);
  t.deepEqual(
    log.filter(({ level }) => level >= 60),
    [],
  );
});

/** What the daemons did, by their log. */
function eventsOf(log: readonly LogLine[]): string[] {
  const counts = new Map<string, number>();
  for (const { level, msg, outcome, recovery } of log) {
    const what = outcome ?? recovery;
    const key = `${level >= 50 ? 'ERROR ' : ''}${msg.slice(0, 60)}${what === undefined ? '' : ` (${what})`}`;
    if (
      msg === 'holding' ||
      msg === 'hold' ||
      msg === 'released' ||
      msg === 'taken over' ||
      recovery ||
      level >= 50
    )
      counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [[...counts].map(([what, count]) => `${what}: ${count}`).join(', ')];
}
