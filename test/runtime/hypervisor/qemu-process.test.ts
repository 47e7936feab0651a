import { readdirSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { threadsByOwnNumber } from '../../../runtime/hypervisor/qemu/qemu-process.ts';
import { startC } from './c-program.ts';

test('threads that run CPUs are found while others come and go', async (t) => {
  const { pid } = await startC(t, path.join(import.meta.dirname, 'restless.c'));
  const [main, ...others] = readdirSync(`/proc/${pid}/task`).map(Number);
  t.is(main, pid);
  const cpus = others.slice(0, 2);
  const found = Array.from({ length: 500 }, () => threadsByOwnNumber(pid, cpus));
  t.deepEqual(
    found.filter((threads) => String(threads) !== String(cpus)),
    [],
  );
  t.deepEqual(threadsByOwnNumber(pid, [...cpus, 1]), [], 'one that is none of its threads');
});
