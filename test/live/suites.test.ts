/**
 * Kernels of all of Debian's suites, each as it is shipped: one boot, and everything that we do to a guest once. What a
 * kernel does not allow is refused with a reason; what must work on every one from 5.2 on fails the test. Here those that
 * span the range; DOMSCHED_MATRIX is all that were fetched, and writes down what was seen for `docs/kernels.md`. With
 * DOMSCHED_WAYS=splice,state it is these ways alone, and what they do is added to what is written. DOMSCHED_CYCLES is how
 * many holds there are in all, by all ways; while they go on, dd copies in the guest and is held with the others.
 * DOMSCHED_PREEMPT=full,lazy boots them with these ways of preemption alone; the newest is booted with all of them.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type MatrixRow, rowFile } from '../../kernels/matrix.ts';
import { type SuiteKernel, spanning, suiteKernels, suitesData } from '../../kernels/suites.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels, registryPaths } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { findWays } from '../../runtime/surgeon/ways.ts';
import { hasGroups } from '../../runtime/technique/fair/members.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import type { Tick } from '../../runtime/tick/tick.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { freePort } from '../runtime/free-port.ts';
import { compareWithProc, READ_STATS } from './against-proc.ts';
import { Cycles, CycleTable, findProcess, goesOn, PATIENCE_MS, pick } from './cycles.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootImage, type LiveGuest } from './guest.ts';
import { parseProcStats } from './proc-stat.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 12);
/** The same for a kernel that is booted with another way of preemption. */
const MOST_PREEMPT_CYCLES = 500;
/** Copies of dd for each hold, at least: 210 beside three times 10,000. */
const COPIES_PER_HOLD = 0.007;
/** Rounds after which the program with the long calls is held, and a dd: they take longest to come out of their calls. */
const CALLS_EVERY = 3;
const isMatrix = process.env.DOMSCHED_MATRIX !== undefined;
/** Of the ways to hold these alone, and nothing else. */
const onlyWays = process.env.DOMSCHED_WAYS?.split(',');
/** Ways of preemption (CONFIG_PREEMPT_DYNAMIC). */
const onlyPreempt = process.env.DOMSCHED_PREEMPT?.split(',');
/** How many of the burners are held at once by ways to be asked for. */
const AT_ONCE = 2;
/** Parts of releases that are wanted of them, or nothing. */
const wanted = process.env.DOMSCHED_MATRIX?.split(',') ?? [];

/** A kernel with little in it has few threads of its own. */
const LEAST_OF_OWN = 25;
/** One without ACPI learns of its CPUs from the MP table, which names one of each socket. */
const CPUS_OF_OWN = '2,sockets=2';

/** More than there are CPUs: one of them is ready whenever it does not run. */
const burners = ['burner-a', 'burner-b', 'burner-c', 'burner-d'] as const;
/** Two of them in groups within a group. */
const GROUPS: Readonly<Record<string, string>> = { 'burner-c': 'b/c', 'burner-d': 'b/d' };
const programs = [
  ...burners.map((name) => ({
    kind: 'burner' as const,
    name,
    ...(GROUPS[name] !== undefined && { cgroup: GROUPS[name] }),
  })),
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'calls', name: 'calls-a' },
  { kind: 'burner', name: 'grouped', cgroup: 'a' },
] as const;
const SETUP = `
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b
echo +cpu >/sys/fs/cgroup/b/cgroup.subtree_control
mkdir /sys/fs/cgroup/b/c /sys/fs/cgroup/b/d
`;
const patient = { limitMs: PATIENCE_MS };
/**
 * A soak on a busy host may find the kernel in the middle of giving up its time stamp counter, in which 7.3 can get stuck
 * by itself (docs/techniques.md, "What a soak found").
 */
const CLOCK = 'tsc=reliable';

const [BLOCK, COUNT] = [2 ** 22, 4];
/** Reads of a whole block, of which a signal makes a part; writes to a pipe that is too small for one. */
const COPY =
  `dd if=/dev/urandom bs=${BLOCK} count=${COUNT} of=/run/one 2>/dev/null; ` +
  `dd if=/run/one bs=${BLOCK} 2>/dev/null | dd bs=4096 of=/run/two 2>/dev/null`;
/** Copies until it is told that it is enough, and says of each how it came out. */
const COPY_ON =
  `(until [ -e /run/enough ]; do ${COPY}; ` +
  `[ $(wc -c </run/one) = ${BLOCK * COUNT} ] && cmp -s /run/one /run/two && echo right || echo wrong; done ` +
  '>/run/copies; echo done >>/run/copies) </dev/null >/dev/null 2>&1 &';

const chosen = (isMatrix ? suiteKernels() : spanning(suiteKernels())).filter(
  ({ release }) => wanted.every((part) => part === '') || wanted.some((part) => release.includes(part)),
);
if (chosen.length < 3 && !isMatrix)
  test('kernels of the suites', (t) => t.fail('they are not here: run `make kernels-suites`'));

/** Ways of preemption are tried on the newest one. */
const newest = spanning(suiteKernels()).at(-1);
for (const kernel of chosen) {
  const ways =
    onlyPreempt ??
    (isMatrix && onlyWays === undefined && kernel.release === newest?.release
      ? [null, 'none', 'voluntary', 'full', 'lazy']
      : [null]);
  for (const preempt of ways) {
    const title = preempt === null ? kernel.release : `${kernel.release} preempt=${preempt}`;
    test.serial(`${title}: everything once`, async (t) => {
      t.timeout(1_200_000 + 3_000 * CYCLES);
      const trial = new Trial(t, kernel, title);
      await trial.run(preempt);
    });
  }
}

/** One kernel, and what was seen of it. */
class Trial {
  readonly #t: ExecutionContext;
  readonly #kernel: SuiteKernel;
  readonly #row: MatrixRow;

  constructor(t: ExecutionContext, kernel: SuiteKernel, title: string) {
    this.#t = t;
    this.#kernel = kernel;
    this.#row = { title, suite: kernel.suite, cells: {}, refused: {}, holds: 0, anomalies: [], seconds: 0 };
  }

  /** Whether it has a configuration of ours (`kernels/own.ts`), which may leave out what all of Debian's have. */
  get #isOwn(): boolean {
    return this.#kernel.suite === 'own';
  }

  async run(preempt: string | null): Promise<void> {
    const begin = performance.now();
    try {
      await this.#guest(preempt);
    } catch (error) {
      this.#row.anomalies.push(String((error as Error).message));
    }
    this.#row.seconds = (performance.now() - begin) / 1000;
    if (isMatrix) {
      const file = rowFile(this.#row.title);
      await mkdir(path.dirname(file), { recursive: true });
      const before =
        onlyWays !== undefined && existsSync(file)
          ? (JSON.parse(await readFile(file, 'utf8')) as MatrixRow)
          : null;
      const row = before === null ? this.#row : addedTo(before, this.#row);
      await writeFile(file, `${JSON.stringify(row, null, 2)}\n`);
    }
    this.#t.deepEqual(this.#row.anomalies, []);
  }

  async #guest(preempt: string | null): Promise<void> {
    await using guest = await bootImage(this.#kernel.vmlinuz, {
      name: this.#row.title.replaceAll(/[^0-9a-z]/g, '-'),
      programs,
      setup: SETUP,
      shellNice: -10,
      ...(this.#isOwn && { cpus: CPUS_OF_OWN }),
      append: [isMatrix ? CLOCK : '', preempt === null ? '' : `preempt=${preempt}`].join(' '),
    });
    if (preempt !== null && !(await this.#preempts(guest, preempt))) return;
    await this.#ours(guest, preempt === null ? CYCLES : Math.min(CYCLES, MOST_PREEMPT_CYCLES));
    // QMP serves one client at a time: the daemon comes when we are gone.
    const canHold = this.#row.refused.all === undefined;
    if (onlyWays === undefined && canHold) await this.#step('daemon', () => this.#idleOnly(guest));
    await this.#step('console', async () => {
      await goesOn(this.#t, guest, await guest.progress(...programs.map(({ name }) => name)));
      guest.checkConsole();
    });
  }

  /** Whether a guest is preempted in the way it was asked for; "sched/preempt: Add PREEMPT_DYNAMIC", 5.12, says it. */
  async #preempts(guest: LiveGuest, preempt: string): Promise<boolean> {
    const said = await guest.run("dmesg | grep 'Dynamic Preempt:'");
    if (said.includes(`Dynamic Preempt: ${preempt}`)) return true;
    this.#row.refused[`preempt=${preempt}`] =
      /Dynamic.*/.exec(said)?.[0] ?? 'its kernel has one way of preemption';
    return false;
  }

  /** All that needs no process but ours. @param holds how many there are to be, in all */
  async #ours(guest: LiveGuest, holds: number): Promise<void> {
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    let attached!: Guest;
    await this.#step('attach', async () => {
      attached = await Guest.attach(domain, await knownKernels(registryPaths({ XDG_DATA_HOME: suitesData })));
      this.#t.is(attached.kernel.release, this.#kernel.release);
      this.#t.is(attached.queuesUnknown, undefined);
    });
    await goesOn(this.#t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    await this.#step('ps', async () => {
      const before = parseProcStats(await guest.run(READ_STATS));
      const processes = await processesOf(attached);
      const after = parseProcStats(await guest.run(READ_STATS));
      compareWithProc(this.#t, before, processes, after, this.#isOwn ? LEAST_OF_OWN : undefined);
    });
    const ways = findWays(domain, attached);
    Object.assign(this.#row.refused, ways.refused);
    // Of Debian's there is none by which nothing can be held.
    if (ways.techniques.length === 0 && this.#isOwn) return attached.detach();
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    const { techniques } = surgeon.ways;
    const table = new CycleTable(this.#row.title);
    {
      using cycles = new Cycles(
        this.#t,
        guest,
        surgeon,
        table,
        programs.map(({ name }) => name),
        burners,
      );
      const asked = (['park', 'splice', 'state'] as const).filter(
        // Ways to be asked for: other tests have them on the kernels that they are for.
        (way) => (isMatrix || way === 'park') && (onlyWays === undefined || onlyWays.includes(way)),
      );
      const offered = asked.filter((way) => techniques.includes(way));
      for (const way of asked) if (!offered.includes(way)) this.#row.cells[way] = 'refused';
      if (isMatrix) await guest.run(COPY_ON);
      for (const way of offered) {
        await this.#step(way, () => this.#rounds(attached, cycles, way, Math.ceil(holds / offered.length)));
        if (way !== 'park') this.#noMoment(way);
      }
      if (isMatrix) await this.#step('copies', () => this.#copied(guest, attached, cycles, holds));
    }
    this.#row.holds = table.holds;
    if (onlyWays === undefined) {
      await this.#step('nice', () => this.#nice(guest, attached, surgeon));
      await this.#step('group', () => this.#group(guest, attached, surgeon));
      await this.#step('calls', () => this.#copies(guest, attached, surgeon));
    }
    for (const line of table.lines()) this.#t.log(line);
    attached.detach();
  }

  /**
   * So many holds by a way, of programs in each state that it can hold them in. By park one in each state is held at
   * once, in some rounds the program that checks its calls and a dd besides; by the others two burners.
   * @returns how many were in which state
   */
  async #rounds(attached: Guest, cycles: Cycles, technique: Technique, count: number): Promise<string> {
    const byWay = {
      park: ['running', 'ready', 'sleeping', 'calls-a'],
      splice: ['ready'],
      state: ['ready', 'running'],
    };
    const wanted: readonly string[] = byWay[technique];
    const seen = new Map(wanted.map((state) => [state, 0]));
    const found = () => [...seen.values()].reduce((sum, times) => sum + times, 0);
    for (let round = 0; round < count && found() < count; round++) {
      const calls = round % CALLS_EVERY === 0;
      const states = calls ? wanted : wanted.filter((state) => state !== 'calls-a');
      const targets = await (technique === 'park'
        ? oneInEach(attached, states, count - found())
        : inState(
            attached,
            wanted[round % wanted.length]!,
            burners.map((name) => ({ name })),
            AT_ONCE,
          ));
      if (targets.length === 0) continue;
      const passing = technique === 'park' && isMatrix && calls ? await copiers(attached) : [];
      await cycles.round([
        ...passing.map((process) => ({ process, technique, mayEnd: true as const })),
        ...targets.map(({ process }) => ({ process, technique })),
      ]);
      for (const { state } of targets) seen.set(state, seen.get(state)! + 1);
    }
    await cycles.end();
    this.#t.true(found() >= count / 2, `${technique}: ${found()} targets found of ${count}`);
    return [...seen].map(([state, times]) => `${times} ${state}`).join(', ');
  }

  /** Goes on until dd has copied as often as it is to beside so many holds. @returns how it went */
  async #copied(guest: LiveGuest, attached: Guest, cycles: Cycles, holds: number): Promise<string> {
    const wanted = Math.ceil(COPIES_PER_HOLD * holds);
    const copies = async () => (await guest.run('cat /run/copies')).trim().split('\n');
    for (let ended = false; !ended; ) {
      const passing = await copiers(attached);
      if (passing.length > 0)
        await cycles.round(passing.map((process) => ({ process, technique: 'park', mayEnd: true })));
      const lines = await copies();
      if (lines.length >= wanted) await guest.run('touch /run/enough');
      ended = lines.includes('done');
    }
    const lines = (await copies()).filter((line) => line !== 'done');
    const right = lines.filter((line) => line === 'right').length;
    this.#t.is(right, lines.length, 'all copies are right');
    return `${right} of ${lines.length} copies right while it was held ${cycles.passing} times`;
  }

  /** What must work does; what did not is an anomaly of the kernel, and the other steps are taken all the same. */
  async #step(column: string, act: () => Promise<unknown>): Promise<void> {
    try {
      const done = await act();
      this.#row.cells[column] = typeof done === 'string' ? done : 'ok';
    } catch (error) {
      this.#row.cells[column] = 'failed';
      this.#row.anomalies.push(`${column}: ${(error as Error).message}`);
      // A soak says it at once.
      console.log(`# ${this.#row.title}: ${column}:`, error);
    }
  }

  /** A thread may never be where it can be spliced: that takes time, and nothing else. */
  #noMoment(technique: Technique): void {
    const late = this.#row.anomalies.findIndex(
      (each) => each.startsWith(`${technique}: `) && each.includes('could not be held in time'),
    );
    if (late < 0) return;
    const [reason] = this.#row.anomalies.splice(late, 1);
    this.#row.cells[technique] = 'no moment';
    this.#row.refused[technique] = reason!;
  }

  async #nice(guest: LiveGuest, attached: Guest, surgeon: Surgeon): Promise<void> {
    const target = findProcess(await processesOf(attached), 'burner-a');
    for (const nice of [7, 0]) {
      await surgeon.renice(target, nice, patient);
      const stats = parseProcStats(await guest.run(`cat /proc/${target.pid}/stat`));
      this.#t.is(stats.get(target.pid)!.nice, nice);
    }
  }

  async #group(guest: LiveGuest, attached: Guest, surgeon: Surgeon): Promise<string> {
    const target = findProcess(await processesOf(attached), 'grouped');
    if (this.#isOwn && !hasGroups(attached.layout)) {
      const refusal = await this.#t.throwsAsync(surgeon.reniceGroup(target, 5, patient), { code: 'refused' });
      this.#row.refused.group = refusal!.message;
      return 'refused';
    }
    for (const [nice, weight] of [
      // kernel/sched/core.c, sched_prio_to_weight[]: 335 and 1024, of which 1024 is 100.
      [5, Math.round((335 * 100) / 1024)],
      [0, 100],
    ] as const) {
      await surgeon.reniceGroup(target, nice, patient);
      this.#t.is(Number(await guest.run('cat /sys/fs/cgroup/a/cpu.weight')), weight);
    }
    return 'ok';
  }

  /** What dd copies while it is held and let go again and again is what it was to copy. */
  async #copies(guest: LiveGuest, attached: Guest, surgeon: Surgeon): Promise<string> {
    const copy = guest.run(
      `${COPY}; wc -c </run/one; cmp /run/one /run/two && echo same; rm /run/one /run/two`,
      PATIENCE_MS,
    );
    let isDone = false;
    let holds = 0;
    void copy.finally(() => (isDone = true)).catch(() => {});
    while (!isDone) {
      const processes = await processesOf(attached);
      for (const target of processes.filter(({ comm }) => comm === 'dd')) {
        // It may end before it is held, or while it is.
        const held = await surgeon.hold(target, patient).catch(() => null);
        await sleep(Math.random() * 20);
        if (held?.outcome === 'held') {
          await surgeon.release(target, patient);
          holds += 1;
        }
      }
      await sleep(Math.random() * 40);
    }
    this.#t.deepEqual((await copy).trim().split('\n'), [String(BLOCK * COUNT), 'same']);
    this.#row.holds += holds;
    return `${holds} holds of dd`;
  }

  /**
   * A daemon holds one burner while the others run, and lets it go when it ends. On one of the kernels it has no layout,
   * and reads it from the guest's memory; page, metrics, `top`, `trace` and `layouts` show that guest as they show any.
   */
  async #idleOnly(guest: LiveGuest): Promise<void> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-suites-'));
    const usual = process.env.DOMSCHED_CACHE_DIR ?? '';
    const isUnknown = this.#kernel.vmlinux === undefined && (isMatrix || this.#kernel === chosen[1]);
    try {
      if (isUnknown) process.env.DOMSCHED_CACHE_DIR = directory;
      else await symlink(path.join(suitesData, 'domsched'), path.join(directory, 'domsched'));
      await using daemon = new DaemonProcess(directory, [guest.connection]);
      const port = await freePort();
      const token = randomBytes(24).toString('hex');
      const tokenFile = path.join(directory, 'token');
      await writeFile(tokenFile, token, { mode: 0o600 });
      await daemon.configure(
        `[[policy]]\ntype = "idle-only"\nname = "night"\nselect = [{ comm = "burner-b" }]\n` +
          `[http]\nlisten = "127.0.0.1:${port}"\ntokenFile = "${tokenFile}"`,
      );
      daemon.start();
      await daemon.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held', 0, PATIENCE_MS);
      const before = await guest.progress('burner-b');
      await goesOn(this.#t, guest, await guest.progress('burner-a'));
      this.#t.deepEqual(await guest.progress('burner-b'), before);
      if (isUnknown) {
        const headers = { authorization: `Bearer ${token}` };
        const page = async (what: string) =>
          (await fetch(`http://127.0.0.1:${port}${what}`, { headers })).text();
        await this.#shows(daemon, page);
      }
      this.#t.is(await daemon.end('SIGTERM'), 0);
      await goesOn(this.#t, guest, before);
    } finally {
      process.env.DOMSCHED_CACHE_DIR = usual;
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #shows(daemon: DaemonProcess, page: (what: string) => Promise<string>): Promise<void> {
    const state = JSON.parse(await page('/api/state')) as Tick;
    this.#t.is(state.domains[0]?.kernel, this.#kernel.release);
    const held = state.domains.flatMap(({ processes }) => processes.filter((process) => process.held));
    this.#t.deepEqual(
      held.map(({ comm }) => comm),
      ['burner-b'],
    );
    const metrics = await page('/metrics');
    this.#t.regex(metrics, /^domsched_held_processes\{.*\} 1$/m);
    const top = (await daemon.domsched('top', '-n', '1')).stdout;
    this.#t.regex(top, /held.*burner-b/);
    // A busy host may look once in a second, which is no span of time yet.
    for (const seconds of [1, 5, 25]) {
      const trace = path.join(daemon.directory, `trace-${seconds}`);
      await daemon.domsched('trace', '-o', trace, '--for', `${seconds}`);
      const report = `${trace}.svg`;
      await daemon.domsched('report', trace, '-o', report);
      const isDrawn = (await readFile(report, 'utf8')).includes('burner-b');
      if (isDrawn || seconds === 25) this.#t.true(isDrawn);
      if (isDrawn) break;
    }
    // Where the layout comes from.
    this.#t.regex((await daemon.domsched('layouts')).stdout, /guest \S+'s memory, \d{4}-\d\d-\d\d/);
  }
}

/** A program to hold, and the state that it was chosen for. */
interface Chosen {
  readonly process: Process;
  readonly state: string;
}

/** Programs that are in a state now, so many at most; none where none is for a while. */
async function inState(
  attached: Guest,
  wanted: string,
  among: readonly { readonly name: string }[],
  atOnce: number,
): Promise<Chosen[]> {
  for (let look = 0; look < 20; look++) {
    const found = (await ours(attached, among)).filter(({ state }) => state === wanted);
    if (found.length > 0)
      return pick(found, Math.min(atOnce, found.length)).map((process) => ({ process, state: wanted }));
  }
  return [];
}

/** One program in each of some states now, or of that name; so many at most, and of the burners one for each state. */
async function oneInEach(attached: Guest, states: readonly string[], most: number): Promise<Chosen[]> {
  const free = await ours(attached, programs);
  const chosen: Chosen[] = [];
  for (const state of pick(states, states.length)) {
    const found = free.filter(({ comm, state: theirs }) => theirs === state || comm === state);
    if (found.length === 0 || chosen.length === most) continue;
    const [process] = pick(found, 1);
    free.splice(free.indexOf(process!), 1);
    chosen.push({ process: process!, state });
  }
  return chosen;
}

async function ours(attached: Guest, among: readonly { readonly name: string }[]): Promise<Process[]> {
  const processes = await processesOf(attached);
  return among
    .map(({ name }) => processes.find(({ comm }) => comm === name))
    .filter((process) => process !== undefined);
}

/** One of those that copy in the guest now, or none. */
async function copiers(attached: Guest): Promise<Process[]> {
  const found = (await processesOf(attached)).filter(
    ({ comm, state }) => comm === 'dd' && state !== 'zombie',
  );
  return pick(found, Math.min(1, found.length));
}

/** A row with what was seen of it besides. */
function addedTo(row: MatrixRow, more: MatrixRow): MatrixRow {
  return {
    ...row,
    cells: { ...row.cells, ...more.cells },
    refused: { ...row.refused, ...more.refused },
    holds: row.holds + more.holds,
    anomalies: [...row.anomalies, ...more.anomalies],
    seconds: row.seconds + more.seconds,
  };
}
