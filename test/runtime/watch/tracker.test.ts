import test from 'ava';
import type { Process } from '../../../runtime/guest/process.ts';
import { Tracker } from '../../../runtime/watch/tracker.ts';

const tracker = () => new Tracker({ domain: 'db', domainName: 'db', boot: '1' });

function processOf(facts: Partial<Process>): Process {
  const times = { utimeNs: 0, stimeNs: 0, runtimeNs: 0, startTimeNs: 1 };
  return { pid: 7, comm: 'postgres', state: 'sleeping', address: 1n, cpu: 1, ...times, ...facts } as Process;
}

test('time in run queues is told from look to look, a stay that does not end by its length', (t) => {
  const one = tracker();
  const look = (nowMs: number, facts: Partial<Process>) => {
    one.update([processOf(facts)], nowMs);
    return one.views()[0]!.waitedNs;
  };
  t.is(look(0, { queuedNs: 5e6 }), 0, 'nothing is known from before the first look');
  t.is(look(100, { queuedNs: 8e6 }), 3e6);
  t.is(look(200, { queuedNs: 8e6, state: 'ready' }), 0, 'it may just have come');
  t.is(look(300, { queuedNs: 8e6, state: 'ready' }), 100e6);
  t.is(look(400, { queuedNs: 160e6, runtimeNs: 1e6 }), 152e6);
  t.is(look(500, { queuedNs: 100e6 }), 0, 'a thread has ended');
  one.still(600);
  t.is(one.views()[0]!.waitedNs, 0);
  t.is(one.views()[0]!.cpu, 1);
});

test('a kernel that is built to account it and does not tells nothing', (t) => {
  const one = tracker();
  one.update([processOf({ queuedNs: 0 })], 0);
  one.update([processOf({ queuedNs: 0, state: 'ready' })], 100);
  t.false('waitedNs' in one.views()[0]!);
});
