/** `ps --watch` over the life of a machine: it dies, and another kernel takes its place under the same name. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';
import { bootO1, buildO1, kernelFile, type O1Variant } from './o1.ts';
import { domsched, TestLayouts } from './ps-layouts.ts';
import { until } from './until.ts';

/** A `ps` that runs on, and what it has said so far. */
function watching(args: readonly string[], layouts: TestLayouts) {
  const child = spawn(process.execPath, ['domsched.ts', 'ps', ...args], {
    cwd: projectDirectory,
    env: { ...process.env, XDG_DATA_HOME: layouts.dataHome },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = { stdout: '', stderr: '', ended: false, end: () => child.kill('SIGKILL') };
  child.on('exit', () => {
    said.ended = true;
  });
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  }
  return said;
}

test.serial(
  'ps --watch: a machine that dies is an error, its successor with another kernel is read',
  async (t) => {
    t.timeout(900_000);
    await buildO1();
    await using layouts = await TestLayouts.of(kernelFile('base'), kernelFile('preempt'));
    const folder = await mkdtemp(path.join(tmpdir(), 'o1-watch-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const socket = path.join(folder, 'swap.sock');
    const boot = (variant: O1Variant, program: string) =>
      bootO1({
        variant,
        name: 'swap',
        commandLine: `run=${program}`,
        extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
      });
    const first = await boot('base', 'pi1');
    t.teardown(() => first.stop());
    await first.waitFor(/^pi1 /);

    const said = watching(['swap', '--watch', '0.2', '--connect', `qemu:unix:${socket}`], layouts);
    t.teardown(() => said.end());
    const looks = () => said.stdout.split(/^DOMAIN .*\n/m).length - 1;
    await until('three looks', () => looks() >= 3);
    t.regex(said.stdout, /^swap .* pi1$/m);
    t.is(said.stderr, '');

    await first.stop();
    await until('its end is told', () => /\[(domain-gone|host-unreachable)\]$/m.test(said.stderr));
    t.false(said.ended, 'it goes on watching');

    const from = said.stdout.length;
    await using second = await boot('preempt', 'pi7');
    await second.waitFor(/^pi7 /);
    await until('the other kernel is read', () => /^swap .* pi7$/m.test(said.stdout.slice(from)));
    t.notRegex(said.stdout.slice(from), /pi1$/m);
    const before = looks();
    await until('it goes on', () => looks() >= before + 2);
  },
);

test.serial(
  'ps --watch: a QEMU that hangs keeps no other machine from being shown, and comes back',
  async (t) => {
    t.timeout(900_000);
    await buildO1();
    await using layouts = await TestLayouts.of(kernelFile('base'));
    const folder = await mkdtemp(path.join(tmpdir(), 'o1-hang-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const boot = (name: string) =>
      bootO1({
        name,
        cpus: 1,
        commandLine: 'run=pi1',
        extraArguments: ['-qmp', `unix:${path.join(folder, name)},server=on,wait=off`],
      });
    await using hangs = await boot('hangs');
    await using runs = await boot('runs');
    for (const guest of [hangs, runs]) await guest.waitFor(/^pi1 /);
    const places = ['hangs', 'runs'].flatMap((name) => ['--connect', `qemu:unix:${path.join(folder, name)}`]);
    const watch = watching(['--watch', '0.2', ...places], layouts);
    t.teardown(() => watch.end());
    const shown = (name: string, from: number) =>
      new RegExp(`^${name} .* pi1$`, 'm').test(watch.stdout.slice(from));
    await until('both are shown', () => shown('hangs', 0) && shown('runs', 0));
    process.kill(hangs.pid, 'SIGSTOP');
    try {
      await until('that it hangs is told', () => /hangs.*\[timeout\]$/m.test(watch.stderr));
      const from = watch.stdout.length;
      await until('the other is still shown', () => shown('runs', from));
    } finally {
      process.kill(hangs.pid, 'SIGCONT');
    }
    const from = watch.stdout.length;
    await until('it is shown again', () => shown('hangs', from));
    t.false(watch.ended);
    t.notRegex(watch.stderr, /\bruns\b/);
  },
);

test.serial('a kernel whose run queues have no lock is shown, and every edit of it refused', async (t) => {
  t.timeout(900_000);
  await buildO1();
  await using layouts = await TestLayouts.of(kernelFile('up'));
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-up-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const socket = path.join(folder, 'up.sock');
  await using guest = await bootO1({
    variant: 'up',
    cpus: 1,
    name: 'up',
    commandLine: 'run=pi1,pi2 strict',
    extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
  });
  for (const name of ['pi1', 'pi2']) await guest.waitFor(new RegExp(`^${name} `));
  const env = { XDG_DATA_HOME: layouts.dataHome };
  const run = (...args: string[]) =>
    domsched([...args, '--connect', `qemu:unix:${socket}`], { env, reject: false });
  t.regex(String((await run('ps', 'up')).stdout), /^up .* pi1$/m);
  for (const args of [
    ['hold', 'up', 'pi1'],
    ['hold', 'up', 'pi1', '--dry-run'],
    ['renice', 'up', 'pi1', '5'],
  ]) {
    const { exitCode, stdout, stderr } = await run(...args);
    t.is(exitCode, 3, args.join(' '));
    t.regex(String(stderr), /no lock \(UP\).*\[refused\]$/);
    t.is(stdout, '');
  }
  const lines = guest.lines.length;
  await until('both go on', () =>
    ['pi1', 'pi2'].every((name) => guest.lines.slice(lines).some((line) => line.startsWith(`${name} `))),
  );
  t.false(guest.lines.some((line) => line.includes('BUG')));
});
