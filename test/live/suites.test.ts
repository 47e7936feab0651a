/**
 * Kernels of all of Debian's suites, each as it is shipped: one boot, and everything that we do to a guest once. What a
 * kernel does not allow is refused with a reason; what must work on every one from 5.2 on fails the test. Here those that
 * span the range; DOMSCHED_MATRIX is all that were fetched, and writes down what was seen for `docs/kernels.md`. With
 * DOMSCHED_WAYS=splice,state it is these ways alone, DOMSCHED_CYCLES holds by each, which are added to what is written.
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
import type { Technique } from '../../runtime/technique/step.ts';
import type { Tick } from '../../runtime/tick/tick.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { compareWithProc, READ_STATS } from './against-proc.ts';
import { Cycles, CycleTable, findProcess, goesOn, PATIENCE_MS, pick } from './cycles.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootImage, type LiveGuest } from './guest.ts';
import { freePort } from './page.ts';
import { parseProcStats } from './proc-stat.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 12);
const isMatrix = process.env.DOMSCHED_MATRIX !== undefined;
/** Of the ways to hold these alone, and nothing else. */
const onlyWays = process.env.DOMSCHED_WAYS?.split(',');
/** Ways of preemption (CONFIG_PREEMPT_DYNAMIC). */
const onlyPreempt = process.env.DOMSCHED_PREEMPT?.split(',');
/** How many of the burners are held at once by ways to be asked for. */
const AT_ONCE = 2;
/** Parts of releases that are wanted of them, or nothing. */
const wanted = process.env.DOMSCHED_MATRIX?.split(',') ?? [];

/** More than there are CPUs: one of them is ready whenever it does not run. */
const burners = ['burner-a', 'burner-b', 'burner-c', 'burner-d'] as const;
const programs = [
  ...burners.map((name) => ({ kind: 'burner', name }) as const),
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'calls', name: 'calls-a' },
  { kind: 'burner', name: 'grouped', cgroup: 'a' },
] as const;
const SETUP = `
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/a
`;
const patient = { limitMs: PATIENCE_MS };

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
      append: preempt === null ? '' : `preempt=${preempt}`,
    });
    if (preempt !== null && !(await this.#preempts(guest, preempt))) return;
    await this.#ours(guest);
    // QMP serves one client at a time: the daemon comes when we are gone.
    if (onlyWays === undefined) await this.#step('daemon', () => this.#idleOnly(guest));
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

  /** All that needs no process but ours. */
  async #ours(guest: LiveGuest): Promise<void> {
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    let attached!: Guest;
    await this.#step('attach', async () => {
      attached = await Guest.attach(domain, await knownKernels(registryPaths({ XDG_DATA_HOME: suitesData })));
      this.#t.is(attached.kernel.release, this.#kernel.release);
    });
    await goesOn(this.#t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    await this.#step('ps', async () => {
      const before = parseProcStats(await guest.run(READ_STATS));
      const processes = await processesOf(attached);
      compareWithProc(this.#t, before, processes, parseProcStats(await guest.run(READ_STATS)));
    });
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    const { techniques, refused } = surgeon.ways;
    Object.assign(this.#row.refused, refused);
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
      const rounds = (technique: Technique, count: number, states: readonly string[], atOnce = 1) =>
        this.#step(technique, async () => {
          const seen = new Map(states.map((state) => [state, 0]));
          const found = () => [...seen.values()].reduce((sum, times) => sum + times, 0);
          for (let round = 0; round < count && found() < count; round++) {
            const state = states[round % states.length]!;
            const among = technique === 'park' ? programs : burners.map((name) => ({ name }));
            const targets = await inState(attached, state, among, atOnce);
            if (targets.length === 0) continue;
            await cycles.round(targets.map((process) => ({ process, technique })));
            seen.set(state, seen.get(state)! + targets.length);
          }
          await cycles.end();
          this.#t.true(found() >= count / 2, `${technique}: ${found()} targets found of ${count}`);
          return [...seen].map(([state, times]) => `${times} ${state}`).join(', ');
        });
      if (onlyWays === undefined || onlyWays.includes('park'))
        await rounds('park', CYCLES, ['running', 'ready', 'sleeping', 'calls-a']);
      // Ways to be asked for: other tests have them on the kernels that they are for.
      for (const technique of isMatrix ? (['splice', 'state'] as const) : [])
        if (onlyWays !== undefined && !onlyWays.includes(technique)) continue;
        else if (techniques.includes(technique)) {
          await rounds(technique, CYCLES, technique === 'state' ? ['ready', 'running'] : ['ready'], AT_ONCE);
          this.#noMoment(technique);
        } else this.#row.cells[technique] = 'refused';
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

  /** What must work does; what did not is an anomaly of the kernel, and the other steps are taken all the same. */
  async #step(column: string, act: () => Promise<unknown>): Promise<void> {
    try {
      const done = await act();
      this.#row.cells[column] = typeof done === 'string' ? done : 'ok';
    } catch (error) {
      this.#row.cells[column] = 'failed';
      this.#row.anomalies.push(`${column}: ${(error as Error).message}`);
      this.#t.log(column, error);
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

  async #group(guest: LiveGuest, attached: Guest, surgeon: Surgeon): Promise<void> {
    const target = findProcess(await processesOf(attached), 'grouped');
    for (const [nice, weight] of [
      // kernel/sched/core.c, sched_prio_to_weight[]: 335 and 1024, of which 1024 is 100.
      [5, Math.round((335 * 100) / 1024)],
      [0, 100],
    ] as const) {
      await surgeon.reniceGroup(target, nice, patient);
      this.#t.is(Number(await guest.run('cat /sys/fs/cgroup/a/cpu.weight')), weight);
    }
  }

  /** What dd copies while it is held and let go again and again is what it was to copy. */
  async #copies(guest: LiveGuest, attached: Guest, surgeon: Surgeon): Promise<string> {
    const [BLOCK, COUNT] = [2 ** 22, 4];
    // Reads of a whole block, of which a signal makes a part; writes to a pipe that is too small for one.
    const copy = guest.run(
      `dd if=/dev/urandom bs=${BLOCK} count=${COUNT} of=/run/one 2>/dev/null; ` +
        `dd if=/run/one bs=${BLOCK} 2>/dev/null | dd bs=4096 of=/run/two 2>/dev/null; ` +
        'wc -c </run/one; cmp /run/one /run/two && echo same; rm /run/one /run/two',
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
    const isUnknown = isMatrix || this.#kernel === chosen[1];
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

/** Programs that are in a state now, or have that name, so many at most; none where none is for a while. */
async function inState(
  attached: Guest,
  wanted: string,
  among: readonly { readonly name: string }[],
  atOnce: number,
): Promise<Process[]> {
  for (let look = 0; look < 20; look++) {
    const processes = await processesOf(attached);
    const found = among
      .map(({ name }) => processes.find(({ comm }) => comm === name))
      .filter((process) => process !== undefined)
      .filter(({ state, comm }) => state === wanted || comm === wanted);
    if (found.length > 0) return pick(found, Math.min(atOnce, found.length));
  }
  return [];
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
