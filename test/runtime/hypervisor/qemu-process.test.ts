import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { threadsByOwnNumber } from '../../../runtime/hypervisor/qemu/qemu-process.ts';

test('threads that run CPUs are found while others come and go', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'domsched-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = path.join(folder, 'restless');
  const source = path.join(import.meta.dirname, 'restless.c');
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', '-pthread', '-o', program, source]);
  const child = spawn(program, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  const pid = child.pid!;
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
