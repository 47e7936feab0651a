import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import type { ExecutionContext } from 'ava';

const BUSY = `new (require('node:worker_threads').Worker)('for (;;);', { eval: true, name: 'vcpu 0' }); console.log('up');`;

/** A process with a thread that never rests and is called as one of a guest's CPUs. It ends with the test. */
export async function busyProcess(
  t: ExecutionContext,
  user?: number,
): Promise<ChildProcess & { pid: number }> {
  const child = spawn(process.execPath, ['-e', BUSY], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(user !== undefined && { uid: user, gid: user }),
  });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child as ChildProcess & { pid: number };
}
