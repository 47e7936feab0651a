import { spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { hostProcess, ownProcess } from '../../../runtime/host-process.ts';
import type { HeldRecord } from '../../../runtime/surgeon/journal.ts';
import { hasMachineEnded, livingMachine } from '../../../runtime/surgeon/machine-ended.ts';

const RECORD: HeldRecord = {
  connection: 'qemu:unix:/run/a.sock',
  domain: '/run/a.sock',
  name: 'a',
  buildId: null,
  pid: 7,
  comm: 'pi',
  address: '0x1000',
  startTimeNs: 1,
  since: '2026-01-01T00:00:00.000Z',
};
const { machine: _, ...share } = {
  ...RECORD,
  kind: 'share' as const,
  hypervisorPid: process.pid,
  before: {},
  set: {},
};
const unreachable = (errno: string) => new DomschedError('host-unreachable', 'no socket', { errno });

test('a machine has ended when its process has, whatever became of the name of its socket', async (t) => {
  const child = spawn('sleep', ['60']);
  const machine = hostProcess(child.pid!)!;
  const records = [RECORD, { ...RECORD, machine }];
  for (const errno of ['ENOENT', 'ECONNREFUSED']) t.false(hasMachineEnded(records, unreachable(errno)));
  t.false(hasMachineEnded(records, new DomschedError('domain-gone', 'the connection broke')));
  t.deepEqual(livingMachine(records), machine);
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  for (const errno of ['ENOENT', 'ECONNREFUSED']) t.true(hasMachineEnded(records, unreachable(errno)));
  t.false(hasMachineEnded(records, unreachable('EACCES')), 'it may be another machine by now');
  t.is(livingMachine(records), undefined);
});

test('another process under the same number is another one', (t) => {
  const { pid, started } = ownProcess();
  t.true(hasMachineEnded([{ ...RECORD, machine: { pid, started: started - 1 } }], unreachable('ENOENT')));
});

test('of a machine of which no process was noted, only the hypervisor can say that it is gone', (t) => {
  t.false(hasMachineEnded([RECORD], unreachable('ENOENT')));
  t.true(hasMachineEnded([RECORD], new DomschedError('domain-gone', 'xen says so')));
  t.false(hasMachineEnded([share], new DomschedError('domain-gone', 'the connection broke')));
});
