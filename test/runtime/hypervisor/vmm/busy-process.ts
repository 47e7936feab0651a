import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import type { ExecutionContext } from 'ava';

/** @param name of the busy thread, as an expression */
const busy = (name: string) =>
  `new (require('node:worker_threads').Worker)('for (;;);', { eval: true, name: ${name} }); console.log('up');`;
const NAMES = {
  cpu: "'vcpu 0'",
  /** QEMU's threads without debug-threads=on have the main thread's name. */
  nameless: "require('node:fs').readFileSync('/proc/self/comm', 'latin1').trim()",
};

/** A process with a thread that never rests and is called as one of a guest's CPUs. It ends with the test. */
export async function busyProcess(
  t: ExecutionContext,
  user?: number,
  name: keyof typeof NAMES = 'cpu',
): Promise<ChildProcess & { pid: number }> {
  const child = spawn(process.execPath, ['-e', busy(NAMES[name])], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(user !== undefined && { uid: user, gid: user }),
  });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child as ChildProcess & { pid: number };
}
