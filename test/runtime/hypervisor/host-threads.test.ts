import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { HostThreads } from '../../../runtime/hypervisor/host-threads.ts';

/** A /proc of our own. */
class ProcFolder implements Disposable {
  readonly root = mkdtempSync(path.join(tmpdir(), 'accounts-'));

  /** @param ticks of CPU time. Further threads have the ids behind the process's own. */
  put(
    pid: number,
    comm: string,
    ticks: number,
    threads: readonly (readonly [ran: number, waited: number])[],
  ): void {
    const stat = (cpu: number) => {
      const fields = Array.from({ length: 50 }, () => '0');
      fields[0] = 'S';
      fields[14 - 3] = String(ticks);
      fields[20 - 3] = String(threads.length);
      fields[39 - 3] = String(cpu);
      return `${pid} (${comm}) ${fields.join(' ')}\n`;
    };
    const directory = path.join(this.root, String(pid));
    for (const [i, [ran, waited]] of threads.entries()) {
      const task = path.join(directory, 'task', String(pid + i));
      mkdirSync(task, { recursive: true });
      writeFileSync(path.join(task, 'schedstat'), `${ran} ${waited} 5\n`);
      writeFileSync(path.join(task, 'stat'), stat(i));
    }
    writeFileSync(path.join(directory, 'stat'), stat(0));
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true });
  }
}

test('each thread with its process’s name, its CPU and its times, whatever the name', (t) => {
  using proc = new ProcFolder();
  proc.put(100, 'a) R 1 (b', 1, [
    [5, 6],
    [7, 8],
  ]);
  mkdirSync(path.join(proc.root, 'self'));
  mkdirSync(path.join(proc.root, '200'));
  t.deepEqual(new HostThreads(proc.root).read(), [
    { tid: 100, pid: 100, rawComm: 'a) R 1 (b', cpu: 0, ranNs: 5, waitedNs: 6 },
    { tid: 101, pid: 100, rawComm: 'a) R 1 (b', cpu: 1, ranNs: 7, waitedNs: 8 },
  ]);
});

test('a process is read again when it has run for a tick, has a new thread, or always; an ended one is gone', (t) => {
  using proc = new ProcFolder();
  const accounts = new HostThreads(proc.root);
  const ran = (always?: ReadonlySet<number>) => accounts.read(always).map(({ ranNs }) => ranNs);
  proc.put(100, 'bash', 1, [[1000, 0]]);
  t.deepEqual(ran(), [1000]);
  proc.put(100, 'bash', 1, [[2000, 0]]);
  t.deepEqual(ran(), [1000], 'not worth reading yet');
  t.deepEqual(ran(new Set([100])), [2000]);
  proc.put(100, 'bash', 2, [[3000, 0]]);
  t.deepEqual(ran(), [3000]);
  proc.put(100, 'bash', 2, [
    [3000, 0],
    [50, 0],
  ]);
  t.deepEqual(ran(), [3000, 50]);
  rmSync(path.join(proc.root, '100'), { recursive: true });
  t.deepEqual(ran(), []);
});

test('of this very process the host tells more and more', (t) => {
  const accounts = new HostThreads();
  const ran = () =>
    new Map(
      accounts
        .read(new Set([process.pid]))
        .filter(({ pid }) => pid === process.pid)
        .map(({ tid, ranNs }) => [tid, ranNs]),
    );
  const before = ran();
  // Other test files are threads of this process too, and end meanwhile.
  const more = () => [...ran()].reduce((sum, [tid, ns]) => sum + ns - (before.get(tid) ?? ns), 0);
  // The host brings a running thread's account up to date at its ticks, and a busy host has few: so the account itself is
  // waited for, and given up when the process has run a hundred times as long.
  const used = process.cpuUsage();
  const userUs = () => process.cpuUsage(used).user;
  let told = 0;
  do told = more();
  while (told < 20e6 && userUs() < 2_000_000);
  t.true(told >= 20e6, `${told} ns after ${userUs()} µs`);
});
