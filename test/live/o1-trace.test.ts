/** `domsched trace` without a daemon on a live O(1) guest, one process of which is held for a while; then `report`. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import type { Tick, TickProcess } from '../../runtime/tick/tick.ts';
import { openTrace } from '../../runtime/trace/read.ts';
import { bootO1, buildO1, kernelFile } from './o1.ts';
import { TestLayouts } from './ps-layouts.ts';
import { until } from './until.ts';

test('a trace shows a held process stand still, and the report when and why', async (t) => {
  t.timeout(900_000);
  await buildO1();
  await using layouts = await TestLayouts.of(kernelFile('base'));
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-trace-'));
  await using _folder = { [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
  const [first, second] = ['one', 'two'].map((name) => path.join(folder, `${name}.sock`));
  await using guest = await bootO1({
    name: 'batch',
    commandLine: 'report=100 run=pi1@0,pi2@1,sleeper',
    // QEMU serves one client per socket, and two of ours are at work here.
    extraArguments: [first, second].flatMap((socket) => ['-qmp', `unix:${socket},server=on,wait=off`]),
  });
  await guest.waitFor(/^pi1 /);
  const program = path.join(projectDirectory, 'domsched.ts');
  // A journal of its own: what others have held in a domain of this name is none of its business.
  const env = { XDG_DATA_HOME: layouts.dataHome, DOMSCHED_RUNTIME_DIR: path.join(folder, 'run') };
  const options = { env, reject: false } as const;
  const domsched = (...args: string[]) => execa(process.execPath, [program, ...args], options);

  const file = path.join(folder, 'batch.trace');
  const tracing = domsched(...['trace', '-o', file, '--interval', '0.1', '--connect', `qemu:unix:${first}`]);
  await using _tracing = {
    [Symbol.asyncDispose]: async () => {
      tracing.kill('SIGKILL');
      await tracing;
    },
  };
  const pi1 = (report: Tick) => report.domains[0]?.processes.find(({ comm }) => comm === 'pi1');
  const seen = async (): Promise<TickProcess[]> => {
    const found: TickProcess[] = [];
    const trace = await openTrace(file).catch(() => undefined);
    if (trace === undefined) return found;
    for await (const report of trace.ticks()) {
      const process = pi1(report);
      if (process !== undefined) found.push(process);
    }
    return found;
  };
  const heldNow = (list: readonly TickProcess[]) => list.filter(({ held }) => held !== undefined).length;

  await until('pi1 runs in the trace', async () => (await seen()).some(({ ranNs }) => ranNs > 0));
  const places = ['--connect', `qemu:unix:${second}`];
  const hold = await domsched('hold', 'batch', 'pi1', ...places);
  t.is(hold.exitCode, 0, hold.stderr);
  await until('pi1 is held for ten ticks', async () => heldNow(await seen()) >= 10);
  const release = await domsched('release', 'batch', 'pi1', ...places);
  t.is(release.exitCode, 0, release.stderr);
  await until('pi1 runs again', async () => {
    const list = await seen();
    return (
      list.findLastIndex(({ ranNs }) => ranNs > 0) > list.findLastIndex(({ held }) => held !== undefined)
    );
  });
  tracing.kill('SIGINT');
  const { exitCode, stdout, stderr } = await tracing;
  t.is(exitCode, 0, stderr);
  t.regex(stdout, /samples of .*; domsched report draws it/);

  const list = await seen();
  const held = list.filter((process) => process.held !== undefined);
  t.deepEqual(new Set(held.map(({ state }) => state)), new Set(['held']));
  // The journal is written before the hold: at the first of these looks it may still have run.
  t.is(new Set(held.slice(1).map(({ cpuNs }) => cpuNs)).size, 1, 'it stood still');
  t.true(list.at(-1)!.cpuNs > held.at(-1)!.cpuNs);

  for (const format of ['svg', 'html']) {
    const drawn = await domsched('report', file, '--format', format);
    t.is(drawn.exitCode, 0, drawn.stderr);
    const picture = await readFile(`${file}.${format}`, 'utf8');
    t.is(picture.match(/<title>held [^<]*, operator: held by a command<\/title>/g)?.length, 1);
    t.regex(picture, />batch</);
    t.regex(picture, />pi1</);
  }
  t.is((await domsched('report', path.join(folder, 'none'))).exitCode, 1);
  t.is((await domsched('trace', '-o', path.join(folder, 'no', 'x'), ...places)).exitCode, 2);
  t.false(guest.lines.some((line) => /BUG|check:/.test(line)));
});
