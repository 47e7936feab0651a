import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { ThreadTimes } from '../../../runtime/hypervisor/thread-times.ts';
import { machineThreads } from '../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { until } from '../../live/until.ts';
import { busyProcess } from './vmm/busy-process.ts';

test('the time of a thread that never rests grows, that of one that sleeps does not, and no other counts', async (t) => {
  const { pid } = await busyProcess(t);
  const times = new ThreadTimes(pid, () => machineThreads(pid).vcpus.slice(0, 1));
  t.teardown(() => times.close());
  const [before] = times.read()!;
  await until('it ran or waited', () => {
    const [now] = times.read()!;
    return now!.ranNs + now!.waitedNs - before!.ranNs - before!.waitedNs > 50e6;
  });
  t.is(times.read()!.length, 1);
});

test('threads that come are found, and a process that has ended tells nothing', async (t) => {
  const child = await busyProcess(t);
  const { pid } = child;
  let nowMs = 0;
  let threads = [pid];
  const times = new ThreadTimes(
    pid,
    () => threads,
    () => nowMs,
  );
  t.teardown(() => times.close());
  t.is(times.read()!.length, 1);
  threads = [pid, ...machineThreads(pid).vcpus.slice(0, 1)];
  t.is(times.read()!.length, 1, 'listed from time to time');
  nowMs += 10_000;
  t.is(times.read()!.length, 2);
  child.kill('SIGKILL');
  await until('its threads are gone', () => times.read() === undefined);
  t.is(new ThreadTimes(process.pid, () => []).read(), undefined, 'no thread is known');
});

test('in a dump nothing runs', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'domsched-dump-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'raw');
  await writeFile(file, Buffer.alloc(8192));
  await using dump = new DumpDomain(file);
  t.deepEqual(dump.hostClock.read(), []);
});
