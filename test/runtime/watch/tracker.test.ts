import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import type { Process } from '../../../runtime/guest/process.ts';
import { STATES } from '../../../runtime/watch/state.ts';
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

const facts = fc.record({
  state: fc.constantFrom('sleeping', 'sleeping', 'running', 'ready', 'zombie'),
  nice: fc.constantFrom(0, 0, 5),
  comm: fc.constantFrom('postgres', 'postgres', 'psql'),
  ppid: fc.constantFrom(1, 1, 2),
  cpu: fc.constantFrom(0, 1),
  runMs: fc.constantFrom(0, 0, 0, 3),
});
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ what: fc.constant('look' as const), facts }) },
  fc.record({ what: fc.constantFrom('still', 'rouse', 'hold', 'let go', 'again') }),
);

test('a process that did not change is the same object as at the look before, and what is told is never out of date', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const one = tracker();
      let [nowMs, runtimeNs] = [0, 0];
      let last = processOf({ nice: 0, ppid: 1, kernelThread: false });
      one.update([last], nowMs);
      for (const each of steps) {
        nowMs += 100;
        let ranNs = 0;
        const before = one.views()[0];
        if (each.what === 'hold' && before !== undefined)
          one.holds.set(before.key, { policy: 'mine', reason: `${nowMs}`, since: '', sinceMs: nowMs });
        else if (each.what === 'let go') one.holds.clear();
        else if (each.what === 'rouse') one.rouse(last.pid);
        else if (each.what === 'still') one.still(nowMs);
        else {
          if ('facts' in each) {
            const { runMs, ...seen } = each.facts;
            runtimeNs += runMs * 1e6;
            ranNs = runMs * 1e6;
            last = processOf({ kernelThread: false, ...seen, runtimeNs } as Partial<Process>);
          } else last = { ...last };
          one.update([last], nowMs);
        }
        const [view] = one.views();
        if (view === undefined) continue;
        const [told] = one.tickProcesses();
        const hold = one.holds.get(view.key);
        if (told!.held?.reason !== hold?.reason || told!.state !== view.state || told!.cpuNs !== view.cpuNs)
          return false;
        if (!('facts' in each) && each.what !== 'again' && each.what !== 'still') continue;
        const wanted = {
          ...{
            pid: 7,
            ppid: last.ppid,
            comm: last.comm,
            nice: last.nice,
            cpu: last.cpu,
            kernelThread: false,
          },
          ...{ cpuNs: runtimeNs, ranNs, roused: undefined },
          state: hold !== undefined && STATES[last.state] !== 'ended' ? 'held' : STATES[last.state],
          heldMs: hold && nowMs - hold.sinceMs,
        };
        for (const [key, value] of Object.entries(wanted))
          if (view[key as keyof typeof view] !== value) return false;
        const rests = before?.ranNs === 0 && before.heldMs === undefined && before.roused === undefined;
        if (each.what === 'again' && rests && hold === undefined && before !== view) return false;
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass('fast-check found no counterexample');
});

const member = fc.record({
  ...{ pid: fc.constantFrom(1, 2, 3), there: fc.boolean(), born: fc.constantFrom(1, 1, 1, 2) },
  ...{ state: fc.constantFrom<Process['state']>('sleeping', 'ready', 'ready', 'running') },
  ...{
    ranMs: fc.constantFrom(0, 0, 3),
    queuedMs: fc.constantFrom(0, 0, 2),
    hold: fc.constantFrom(0, 0, 0, 1, 2),
  },
  what: fc.constantFrom('look', 'look', 'look', 'still', 'still', 'estimate', 'rouse'),
  // A guest that lies lists one twice.
  twice: fc.constantFrom(false, false, false, true),
});

test('objects that are the same as at the look before tell the same as copies of them', (t) => {
  fc.assert(
    fc.property(fc.array(member, { maxLength: 30 }), (steps) => {
      const [same, copied] = [tracker(), tracker()];
      const there = new Map<number, Process>();
      for (const [
        i,
        { pid, there: is, born, state, ranMs, queuedMs, hold, what, twice },
      ] of steps.entries()) {
        const nowMs = 100 * i;
        const [kept, told] = [same.views(), same.tickProcesses()];
        const were = [[...kept], [...told]];
        const before = there.get(pid);
        const facts = {
          ...{ pid, state, startTimeNs: born },
          runtimeNs: (before?.runtimeNs ?? 0) + ranMs * 1e6,
          queuedNs: (before?.queuedNs ?? 0) + queuedMs * 1e6,
        };
        if (!is) there.delete(pid);
        else if (!isDeepStrictEqual(before, processOf(facts))) there.set(pid, processOf(facts));
        for (const one of [same, copied]) {
          const key = one.viewOf(pid)?.key;
          if (hold === 1 && key !== undefined)
            one.holds.set(key, { policy: 'mine', reason: '', since: '', sinceMs: nowMs });
          if (hold === 2) one.holds.clear();
        }
        const ends = [same, copied].map((one) => {
          if (what === 'still') one.still(nowMs);
          else if (what === 'estimate') one.estimate(nowMs);
          else if (what === 'rouse') one.rouse(pid);
          else
            return one.update(
              [...there.values()]
                .flatMap((process) => (twice ? [process, process] : [process]))
                .map((process) => (one === same ? process : { ...process })),
              nowMs,
            );
          return [];
        });
        if (!isDeepStrictEqual(ends[0], ends[1])) return false;
        if (!isDeepStrictEqual(same.views(), copied.views())) return false;
        if (!isDeepStrictEqual(same.tickProcesses(), copied.tickProcesses())) return false;
        // Whoever keeps an array keeps what it was.
        for (const [list, was] of [[kept, were[0]!] as const, [told, were[1]!] as const])
          if (list.length !== was.length || list.some((each, k) => each !== was[k])) return false;
        // And what is remembered of all is what is known of each.
        if (same.views().length !== [...same.keys()].length) return false;
        for (const view of same.views()) if (view !== same.view(view.key)) return false;
        for (const { key, held } of same.tickProcesses())
          if ((held === undefined) !== !same.holds.has(key)) return false;
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass('fast-check found no counterexample');
});

test('when nothing has changed, all views are the same array, and so is what a tick is told', (t) => {
  const one = tracker();
  const processes = [processOf({}), processOf({ pid: 8, address: 2n as never })];
  one.update(processes, 0);
  const [views, told] = [one.views(), one.tickProcesses()];
  one.update(processes, 100);
  one.still(200);
  t.is(one.views(), views);
  t.is(one.tickProcesses(), told);
  one.update([processes[0]!], 300);
  t.is(one.views().length, 1);
  t.is(one.tickProcesses().length, 1);
});
