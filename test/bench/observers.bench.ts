/**
 * `node test/bench/observers.bench.ts [SECONDS]`: CPU that `top`, `trace` and `ps --watch` use over 10 domains of 50
 * tasks at 0.5 s, looking themselves and fed by a daemon, and what they cost that daemon. The domains are in memory; what
 * it takes to have them is taken off. The daemon's clients are the program as it is installed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import Table from 'cli-table3';
import { projectDirectory } from '../../kernels/paths.ts';
import { openDaemon } from '../../runtime/control/open.ts';
import { until } from '../live/until.ts';
import { record } from './harness.ts';

const SECONDS = Number(process.argv[2] ?? 10);
const DOMAINS = 10;
const INTERVAL_MS = 500;
/** Until it runs as it will: modules are loaded, code is compiled. */
const WARM_MS = 5_000;
/** Of a clock tick, by which Linux counts CPU time for others to see. */
const TICK_MS = 10;

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-observers-'));
const env = { ...process.env, DOMSCHED_RUNTIME_DIR: directory };
const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

function start(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, ['--min-semi-space-size=16', ...args], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  children.add(child);
  return child;
}

function stop(child: ChildProcess): void {
  child.kill('SIGKILL');
  children.delete(child);
}

/** CPU that a process used so far, in ms. */
function cpuOf({ pid }: ChildProcess): number {
  // The name may hold anything: fields are counted from its closing bracket. utime and stime are the 14th and 15th.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** What processes use, in percent of one CPU each. */
async function measure(...processes: readonly ChildProcess[]): Promise<number[]> {
  await sleep(WARM_MS);
  const [before, begun] = [processes.map(cpuOf), performance.now()];
  await sleep(SECONDS * 1000);
  const tookMs = performance.now() - begun;
  if (processes.some(({ exitCode }) => exitCode !== null)) throw new Error('an observer has ended');
  return processes.map((child, i) => (100 * (cpuOf(child) - before[i]!)) / tookMs);
}

const script = path.join(import.meta.dirname, 'observer-process.ts');
const own = (kind: string) => start(script, kind, String(DOMAINS), String(INTERVAL_MS));
const program = path.join(projectDirectory, 'dist', 'domsched.js');
const trace = path.join(directory, 'trace');
const COMMANDS = {
  top: ['top'],
  trace: ['trace', '-o', trace],
  ps: ['ps', '--watch', String(INTERVAL_MS / 1000)],
} as const;

const results: { name: string; alone: number; client: number; daemon: number }[] = [];
try {
  const idle = own('idle');
  const [load = 0] = await measure(idle);
  stop(idle);
  const daemon = own('daemon');
  const socket = path.join(directory, 'control');
  await (await until('the daemon answers', () => openDaemon([], socket)))[Symbol.asyncDispose]();
  const [unwatched = 0] = await measure(daemon);
  for (const [kind, command] of Object.entries(COMMANDS)) {
    const client = start(program, ...command);
    const [forClient = 0, forDaemon = 0] = await measure(client, daemon);
    stop(client);
    const looker = own(kind);
    const [alone = 0] = await measure(looker);
    stop(looker);
    const name = kind === 'ps' ? 'ps --watch 0.5' : kind;
    results.push({ name, alone: alone - load, client: forClient, daemon: forDaemon - unwatched });
  }
  const table = new Table({
    head: ['% of one CPU', 'looking itself', 'fed by the daemon', 'more for the daemon'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const { name, ...shares } of results) {
    table.push([name, ...Object.values(shares).map((share) => share.toFixed(1))]);
  }
  console.log(`${DOMAINS} domains of 50 tasks every ${INTERVAL_MS} ms, ${SECONDS} s each`);
  console.log(`the daemon with nobody looking: ${(unwatched - load).toFixed(1)} %`);
  console.log(table.toString());
  await record('observers', { load, unwatched, results });
  stop(daemon);
} finally {
  for (const child of children) stop(child);
  await rm(directory, { recursive: true, force: true });
}
