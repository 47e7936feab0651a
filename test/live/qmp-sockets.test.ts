/** QMP sockets as people have them, of machines that run no guest: what can be attached to, and what is said of others. */
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import type { DomschedError } from '../../runtime/error.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { QmpClient } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { until } from './until.ts';

/** How long QEMU may be silent: longer than it ever is for a client that it takes. */
const SILENCE_MS = 1_500;
const QMP = ['-qmp', 'unix:x.sock,server=on,wait=off'];

/** A machine that stands still at its first instruction, with a folder of its own that it runs in. */
class StoppedMachine implements AsyncDisposable {
  readonly folder: string;
  readonly #qemu;

  private constructor(folder: string, command: readonly string[]) {
    this.folder = folder;
    this.#qemu = execa(command[0]!, command.slice(1), { cwd: folder, reject: false, cleanup: true });
  }

  static async start(args: readonly string[], prefix: readonly string[] = []): Promise<StoppedMachine> {
    const folder = await mkdtemp(path.join(tmpdir(), 'domsched-sockets-'));
    const qemu = ['qemu-system-x86_64', '-S', '-m', '16', '-smp', '2', '-accel', 'tcg', '-nodefaults'];
    const machine = new StoppedMachine(folder, [
      ...prefix,
      ...qemu,
      '-display',
      'none',
      '-no-user-config',
      ...args,
    ]);
    // It greets when all of its sockets are there.
    await until('QMP answers', async (swallow) => {
      const client = await QmpClient.connect(machine.at('x.sock')).catch(swallow);
      client?.close();
      return client !== undefined;
    });
    return machine;
  }

  get pid(): number {
    return this.#qemu.pid!;
  }

  at(name: string): string {
    return path.join(this.folder, name);
  }

  attach(name = 'x.sock'): Promise<QemuDomain> {
    return QemuDomain.attach({ qmp: this.at(name) }, `qemu:unix:${this.at(name)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#qemu;
    await rm(this.folder, { recursive: true, force: true });
  }
}

async function refusal(file: string): Promise<DomschedError> {
  const client = await QmpClient.connect(file, { greetingTimeoutMs: SILENCE_MS }).catch((error) => error);
  if (!(client instanceof QmpClient)) return client as DomschedError;
  client.close();
  throw new Error(`${file} was attached to`);
}

test.serial('a socket bound by a relative path, and moved afterwards, leads to its process', async (t) => {
  await using machine = await StoppedMachine.start(QMP);
  await using other = await StoppedMachine.start(QMP);
  for (const each of [machine, other]) {
    await using domain = await each.attach();
    t.is(domain.identity.pid, each.pid);
    t.is(domain.vcpus, 2);
  }
  await rename(machine.at('x.sock'), machine.at('moved.sock'));
  await using moved = await machine.attach('moved.sock');
  t.is(moved.identity.pid, machine.pid);
});

test.serial(
  'a machine in a PID namespace of its own is found by the kernel, not by the numbers that it says',
  async (t) => {
    await using machine = await StoppedMachine.start(QMP, [
      'unshare',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
    ]);
    await using domain = await machine.attach();
    const { stdout } = await execa('cat', [`/proc/${machine.pid}/task/${machine.pid}/children`]);
    t.is(domain.identity.pid, Number(stdout.trim()));
  },
);

test.serial('-qmp-pretty, whose answers go over several lines', async (t) => {
  await using machine = await StoppedMachine.start(['-qmp-pretty', 'unix:x.sock,server=on,wait=off']);
  await using domain = await machine.attach();
  t.is(domain.vcpus, 2);
});

test.serial(
  'why a socket does not answer: stopped, another client, no QMP; and what is said helps',
  async (t) => {
    const serial = ['-serial', 'unix:serial.sock,server=on,wait=off'];
    const monitor = ['-monitor', 'unix:monitor.sock,server=on,wait=off'];
    const second = ['-qmp', 'unix:second.sock,server=on,wait=off'];
    await using machine = await StoppedMachine.start([...QMP, ...serial, ...monitor, ...second]);
    for (const name of ['serial.sock', 'monitor.sock']) {
      const error = await refusal(machine.at(name));
      t.is(error.code, 'protocol', name);
      t.regex(error.message, /name the socket of -qmp/, name);
    }
    const client = await QmpClient.connect(machine.at('x.sock'));
    const taken = await refusal(machine.at('x.sock'));
    t.is(taken.code, 'timeout');
    t.regex(taken.message, /another one is attached.*second socket: -qmp unix:/);
    (await QmpClient.connect(machine.at('second.sock'))).close();
    client.close();
    process.kill(machine.pid, 'SIGSTOP');
    const stopped = await refusal(machine.at('second.sock'));
    t.is(stopped.code, 'timeout');
    const advice = /is stopped; let it go on: (kill -CONT (\d+))$/.exec(stopped.message);
    t.is(Number(advice?.[2]), machine.pid, stopped.message);
    await execa('sh', ['-c', advice![1]!]);
    const patient = await QmpClient.connect(machine.at('second.sock'), { timeoutMs: SILENCE_MS });
    process.kill(machine.pid, 'SIGSTOP');
    const late = await t.throwsAsync(patient.execute('query-status'), { code: 'timeout' });
    process.kill(machine.pid, 'SIGCONT');
    t.regex(late!.message, /no answer to query-status .*is stopped; let it go on: kill -CONT/);
    patient.close();
  },
);
