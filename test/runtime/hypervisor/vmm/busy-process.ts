import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import type { ExecutionContext } from 'ava';

/** @param name of the thread, as an expression @param work what it does */
const source = (name: string, work: string) =>
  `new (require('node:worker_threads').Worker)(${JSON.stringify(work)}, { eval: true, name: ${name} });` +
  "console.log('up');";
const WORK = {
  busy: 'for (;;);',
  asleep:
    'require("node:fs").writeSync(1, "asleep"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);',
};
const NAMES = {
  cpu: "'vcpu 0'",
  /** QEMU's threads without debug-threads=on have the main thread's name. */
  nameless: "require('node:fs').readFileSync('/proc/self/comm', 'latin1').trim()",
};

/** A process with a thread that is called as one of a guest's CPUs, and never rests or always. It ends with the test. */
export async function busyProcess(
  t: ExecutionContext,
  user?: number,
  name: keyof typeof NAMES = 'cpu',
  work: keyof typeof WORK = 'busy',
): Promise<ChildProcess & { pid: number }> {
  const child = spawn(process.execPath, ['-e', source(NAMES[name], WORK[work])], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(user !== undefined && { uid: user, gid: user }),
  });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  const words = work === 'busy' ? ['up'] : ['up', 'asleep'];
  while (!words.every((word) => said.includes(word))) said += (await once(child.stdout!, 'data'))[0];
  return child as ChildProcess & { pid: number };
}
