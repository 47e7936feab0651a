import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../../../runtime/error.ts';
import { processState } from '../../../../runtime/hypervisor/qemu/qemu-process.ts';
import { standsAtBlockStart, startsBlock } from '../../../../runtime/hypervisor/vmm/block-start.ts';
import { turnsIn } from '../../../../runtime/hypervisor/vmm/instruction-border.ts';
import { StoppedThreads } from '../../../../runtime/hypervisor/vmm/stopped-threads.ts';
import { machineThreads, threadsOf } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { until } from '../../../live/until.ts';
import { startC } from '../c-program.ts';

/** Long enough for the busiest host. */
const MANY_MS = 20_000;
const SIGNALS = 400;
const DIE = path.join(import.meta.dirname, 'stop-and-die.ts');
/** A program with several threads, that counts as fast as it can. */
const BUSY = `
const { Worker } = require('node:worker_threads');
for (let i = 0; i < 4; i++) new Worker('for (;;);', { eval: true });
console.log('up');
`;

async function busy(t: ExecutionContext): Promise<ChildProcess & { pid: number }> {
  const child = spawn(process.execPath, ['-e', BUSY], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child as ChildProcess & { pid: number };
}

const all = (pid: number) => () => threadsOf(pid).map(({ tid }) => tid);
/** On a busy host a thread may have no CPU for as long as it takes to give up: what is given up is tried again. */
function stop(pid: number, choose = all(pid)): StoppedThreads {
  for (let attempt = 1; ; attempt++) {
    try {
      return StoppedThreads.stop(pid, choose);
    } catch (error) {
      if ((error as DomschedError).code !== 'timeout' || attempt === 40) throw error;
    }
  }
}
const states = (pid: number) => threadsOf(pid).map(({ tid }) => processState(tid));

test.serial('all threads stand, and all go on; again and again', async (t) => {
  const { pid } = await busy(t);
  for (let i = 0; i < 20; i++) {
    const stopped = stop(pid);
    t.true(stopped.stand);
    t.deepEqual(new Set(states(pid)), new Set(['t']));
    t.is(stopped.threads.length, threadsOf(pid).length);
    stopped.release();
    t.false(stopped.stand);
    t.false(states(pid).includes('t'));
  }
});

test.serial('a thread that comes while others are stopped is stopped too', async (t) => {
  const { pid } = await busy(t);
  const threads = all(pid)();
  let looks = 0;
  const stopped = stop(pid, () => (looks++ === 0 ? threads.slice(1) : threads));
  t.deepEqual([...stopped.threads].sort(), [...threads].sort());
  stopped.release();
  let more = 0;
  const endless = () => {
    more += 1;
    return threads.slice(0, more);
  };
  t.throws(() => StoppedThreads.stop(pid, endless), { code: 'timeout' });
  t.false(states(pid).includes('t'), 'given up: all go on');
});

test.serial('killed in the pause: everybody goes on', async (t) => {
  const { pid } = await busy(t);
  const other = spawn(process.execPath, [DIE, String(pid)], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => other.kill('SIGKILL'));
  await once(other.stdout!, 'data');
  t.true(states(pid).every((state) => state === 't'));
  const error = t.throws<DomschedError>(() => stop(pid), { code: 'refused' });
  t.is(error?.details.tracer, other.pid, 'it says who traces it');
  other.kill('SIGKILL');
  await once(other, 'exit');
  await until('all go on', () => !states(pid).includes('t'));
  const stopped = stop(pid);
  stopped.release();
});

test.serial('killed while it is traced: it stands no longer, and nothing of it is left', async (t) => {
  const child = await busy(t);
  const stopped = stop(child.pid);
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await until('it is known', () => !stopped.stand);
  stopped.release();
  await exit;
  t.is(processState(child.pid), undefined);
  t.throws(() => StoppedThreads.stop(child.pid, all(child.pid)), { code: 'domain-gone' });
});

const translators = (t: ExecutionContext) => startC(t, path.join(import.meta.dirname, 'two-translators.c'));

test.serial('two threads that share a lock both come to the end of their instructions', async (t) => {
  const { pid } = await translators(t);
  // One at a time would wait for ever for the lock of one that stands.
  for (let round = 0; round < 12; round++) {
    const stopped = StoppedThreads.stop(pid, all(pid), (thread) => thread !== pid, {
      allMs: MANY_MS,
      standMs: MANY_MS,
    });
    t.true(stopped.stand);
    stopped.release();
    await sleep(5 * Math.random());
  }
});

test.serial('signals come through, each once, whether threads stop in time or not', async (t) => {
  const child = await translators(t);
  const { pid } = child;
  const ends = { stopped: 0, late: 0 };
  let sent = 0;
  // A busy host may stop none of them in time at first: more are sent then, and more time is given.
  for (let longest = 80; sent === 0 || ends.stopped === 0 || ends.late === 0; longest *= 2) {
    t.true(longest < 10_000, JSON.stringify(ends));
    const sender = spawn('bash', [
      '-c',
      `for i in {1..${SIGNALS}}; do kill -s RTMIN ${pid}; sleep 0.002; done`,
    ]);
    t.teardown(() => sender.kill('SIGKILL'));
    sent += SIGNALS;
    let isSent = false;
    sender.once('exit', () => {
      isSent = true;
    });
    while (!isSent) {
      try {
        const limitMs = Math.random() * (Math.random() < 0.8 ? 1 : longest);
        const limits = { allMs: limitMs, standMs: limitMs };
        StoppedThreads.stop(pid, all(pid), (thread) => thread !== pid, limits).release();
        ends.stopped += 1;
      } catch (error) {
        t.is((error as DomschedError).code, 'timeout');
        ends.late += 1;
      }
      await sleep(1);
    }
  }
  let last = '';
  child.stdout!.on('data', (data: Buffer) => {
    last = data.toString('latin1').trim().split('\n').at(-1)!;
  });
  await until('all were handled', async () => {
    execFileSync('bash', ['-c', `kill -s RTMIN+1 ${pid}`]);
    await sleep(20);
    return Number(last) >= sent;
  });
  t.is(Number(last), sent);
});

test('which threads run CPUs: by name, and every nameless one', (t) => {
  const named = (names: Record<number, string>) =>
    Object.entries(names).map(([tid, name]) => ({ tid: Number(tid), name }));
  const libvirt = named({
    7: 'qemu-system-x86',
    8: 'IO mon_iothread',
    9: 'CPU 0/KVM',
    10: 'CPU 1/KVM',
    11: 'worker',
  });
  t.deepEqual(machineThreads(7, libvirt), { vcpus: [9, 10], named: 2, moving: undefined });
  const fresh = [...libvirt, { tid: 12, name: 'qemu-system-x86' }];
  t.deepEqual(machineThreads(7, fresh).vcpus, [9, 10, 12], 'a CPU that was just plugged in has no name yet');
  const nameless = named({ 7: 'kvm', 8: 'kvm', 9: 'kvm' });
  t.deepEqual(machineThreads(7, nameless), { vcpus: [8, 9], named: 0, moving: undefined });
  t.deepEqual(machineThreads(7, named({ 7: 'qemu', 8: 'ALL CPUs/TCG' })).vcpus, [8]);
  t.deepEqual(machineThreads(7, named({ 7: 'firecracker', 8: 'fc_api', 9: 'fc_vcpu 0' })).vcpus, [9]);
  for (const name of ['live_migration', 'mig/src/main', 'multifdsend_0', 'bg_snapshot']) {
    t.is(machineThreads(7, [...libvirt, { tid: 13, name }]).moving, name);
  }
});

test('the start of a translated block, as QEMU prints it (-d out_asm)', (t) => {
  const start = (hex: string) =>
    startsBlock(Buffer.from(`${hex}${'00'.repeat(16)}`.replaceAll(' ', ''), 'hex'));
  t.true(start('8b 5d f0 85 db 0f 8c 2b 00 00 00'), 'movl -0x10(%rbp), %ebx; testl %ebx, %ebx; jl');
  t.true(start('44 8b 65 f0 45 85 e4 0f 8c 98 00 00 00'), 'movl -0x10(%rbp), %r12d; testl %r12d, %r12d; jl');
  t.false(start('8b 5d 10 85 db 0f 8c'), 'a member of the CPU, not what is below it');
  t.false(start('8b 5d f0 85 c0 0f 8c'), 'another register is tested');
  t.false(start('8b 5d f0 85 db 0f 84'), 'another condition');
  t.false(start('c7 85 d0 00 00 00 00 f0'));
  const whole = Buffer.from('0000000000000000448b65f04585e40f8c98000000'.padEnd(64, '0'), 'hex');
  // Of the three, and of what follows.
  const instructions = [0, 4, 7, 13, 16];
  const border = instructions.filter((at) => standsAtBlockStart(whole, 8 + at));
  t.deepEqual(border, [0, 4, 7, 13], 'before the load, the test and the jump, and after it');
});

test('how often a thread ran: not known where the kernel does not count, which is no reason to wait', (t) => {
  t.is(turnsIn('4524491 2125772 17\n'), '17');
  t.is(turnsIn('0 0 0\n'), undefined, 'as /proc says without CONFIG_SCHEDSTATS and delay accounting');
  t.is(turnsIn(''), undefined);
});
