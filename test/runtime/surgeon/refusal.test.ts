import test from 'ava';
import type { Process } from '../../../runtime/guest/process.ts';
import { guestVirtual } from '../../../runtime/memory/address.ts';
import { checkMayBeHeld } from '../../../runtime/surgeon/refusal.ts';

const ordinary: Process = {
  pid: 100,
  tgid: 100,
  ppid: 1,
  comm: 'worker',
  rawComm: 'worker',
  state: 'running',
  cpu: 0,
  nice: 0,
  policy: 'normal',
  utimeNs: 0,
  stimeNs: 0,
  runtimeNs: 0,
  threads: 1,
  kernelThread: false,
  exiting: false,
  address: guestVirtual(0xffff_8880_0000_0000n),
  startTimeNs: 1,
};

const CASES: [string, Partial<Process>, forced: boolean][] = [
  ['a kernel thread', { kernelThread: true }, false],
  ['the first process', { pid: 1, tgid: 1 }, false],
  ['an exiting process', { exiting: true }, false],
  ['a zombie', { state: 'zombie' }, false],
  ['a traced process', { state: 'traced' }, false],
  ['a FIFO process', { policy: 'fifo' }, true],
  ['a round-robin process', { policy: 'rr' }, true],
  ['a deadline process', { policy: 'deadline' }, true],
  ['what serves storage', { ioFlusher: true }, true],
];

test('an ordinary process may be held, whatever it does and calls itself', (t) => {
  for (const rawComm of ['sbd', 'watchdog'])
    t.notThrows(() => checkMayBeHeld([{ ...ordinary, rawComm, comm: rawComm }], false));
  for (const state of ['running', 'ready', 'sleeping', 'disk-sleep', 'stopped'] as const)
    t.notThrows(() => checkMayBeHeld([{ ...ordinary, state }], false));
});

for (const [name, change, forced] of CASES) {
  test(`${name} is refused${forced ? ' unless forced' : ', forced or not'}`, (t) => {
    const process = { ...ordinary, ...change };
    t.throws(() => checkMayBeHeld([process], false), { code: 'refused', message: /nothing was changed/ });
    if (forced) t.notThrows(() => checkMayBeHeld([process], true));
    else t.throws(() => checkMayBeHeld([process], true), { code: 'refused' });
  });
}

test('a thread that is traced or has a real-time policy speaks for its process; one that ends does not', (t) => {
  const thread = { ...ordinary, pid: 101 };
  const among = (change: Partial<Process>, force = false) =>
    checkMayBeHeld([ordinary, thread, { ...thread, pid: 102, ...change }], force);
  t.notThrows(() => among({ exiting: true, state: 'dead' }));
  const gone = { ...ordinary, exiting: true, state: 'zombie' } as const;
  t.notThrows(() => checkMayBeHeld([gone, thread], false), 'nor does a leader that has ended');
  t.throws(() => among({ policy: 'fifo' }), { code: 'refused', message: /process 100 .*real-time/ });
  t.notThrows(() => among({ policy: 'fifo' }, true));
  t.throws(() => among({ state: 'traced' }, true), { code: 'refused', message: /process 100 .*tracer/ });
});
