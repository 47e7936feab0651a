import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import type { Domain, VcpuRegisters } from '../../../runtime/hypervisor/types.ts';
import {
  CFS_KERNEL,
  EEVDF_KERNEL,
  knownKernel,
  SYNTHETIC_KERNELS,
  SyntheticGuest,
  twoBoots,
} from './synthetic.ts';

const INTERRUPTS_ON = 0x202n;
const INTERRUPTS_OFF = 0x2n;

const halted = (vcpu: VcpuRegisters, flags: bigint): VcpuRegisters => ({
  ...vcpu,
  halted: true,
  rflags: flags,
});
const names = (guest: Guest) => guest.snapshot().processes.map(({ comm }) => comm);

/** A running domain by its memory alone; what moves in it does so before each look. */
function memoryOf({ domain }: SyntheticGuest, moves: () => void): Domain {
  return {
    identity: domain.identity,
    frames: domain.frames,
    pause: domain.pause,
    get generation() {
      return domain.generation;
    },
    tick() {
      moves();
      domain.tick();
    },
    state: async () => 'running',
    onEvent: () => () => undefined,
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  for (const slide of [undefined, 0x2200_0000n]) {
    test(`${kernel}: of a kernel that crashed and the one that runs in its place, the latter (slide ${slide ?? 'the same'})`, async (t) => {
      const { first, second } = await twoBoots(kernel, slide);
      const [dead] = first.domain.vcpus;
      const [alive] = second.domain.vcpus;
      const known = [knownKernel(kernel)];
      first.domain.vcpus = [halted({ ...dead!, vcpu: 0 }, INTERRUPTS_OFF), { ...alive!, vcpu: 1 }];
      const guest = await Guest.attach(first.domain, known);
      t.true(names(guest).includes('after'));
      t.is(guest.kernel.crashed, 1);
      // A CPU that only idles is as good a witness as one that runs.
      first.domain.vcpus = [
        halted({ ...dead!, vcpu: 0 }, INTERRUPTS_ON),
        halted({ ...alive!, vcpu: 1 }, INTERRUPTS_OFF),
      ];
      t.true(names(await Guest.attach(first.domain, known)).includes('before'));
      // Nothing runs any more: what the first CPU saw last.
      first.domain.vcpus = first.domain.vcpus.map((vcpu) => halted(vcpu, INTERRUPTS_OFF));
      t.true(names(await Guest.attach(first.domain, known)).includes('before'));
    });
  }

  test(`${kernel}: in a dump, which does not say who has halted, a CPU of the kernel that crashed stands behind HLT`, async (t) => {
    const { first, second } = await twoBoots(kernel, 0x2200_0000n);
    const [dead] = first.domain.vcpus;
    const [alive] = second.domain.vcpus;
    const code = first.object('task_struct');
    first.word(code, 0x90f4n);
    const stands = (vcpu: number, at: bigint) => ({
      ...dead!,
      ...{ vcpu, halted: undefined, rflags: INTERRUPTS_OFF, cpl: 0, rip: code + at },
    });
    first.domain.vcpus = [stands(0, 1n), { ...alive!, vcpu: 1, halted: undefined }];
    const guest = await Guest.attach(first.domain, [knownKernel(kernel)]);
    t.true(names(guest).includes('after'));
    t.is(guest.kernel.crashed, 1);
    // Behind another instruction it has not halted.
    first.domain.vcpus = [stands(0, 2n), { ...alive!, vcpu: 1, halted: undefined }];
    t.true(names(await Guest.attach(first.domain, [knownKernel(kernel)])).includes('before'));
  });

  test(`${kernel}: without registers, of two kernels in memory the one that moves and is whole`, async (t) => {
    const { first, second } = await twoBoots(kernel, 0x2200_0000n);
    let running: SyntheticGuest | undefined = second;
    let clock = 1n;
    const domain = memoryOf(first, () => running?.put(running.queues[0]!, 'rq', 'clock', clock++));
    const known = [knownKernel(kernel)];
    const successor = await Guest.attach(domain, known);
    t.true(names(successor).includes('after'));
    t.is(successor.kernel.standing, 1);
    running = first;
    const guest = await Guest.attach(domain, known);
    t.true(names(guest).includes('before'));
    t.is(guest.kernel.standing, undefined);
    await guest.verifyRuns();
    running = second;
    await t.throwsAsync(guest.verifyRuns(), { code: 'kernel-unidentified', message: /kexec/ });
    // Nothing moves: the first.
    running = undefined;
    t.true(names(await Guest.attach(domain, known)).includes('before'));
    // Its memory is used for other things by now.
    first.put(first.initTask, 'task_struct', 'pid', 7);
    const only = await Guest.attach(domain, known);
    t.true(names(only).includes('after'));
    t.is(only.kernel.standing, undefined);
    second.put(second.initTask, 'task_struct', 'pid', 7);
    await t.throwsAsync(Guest.attach(domain, known), { code: 'layout-disproved' });
  });

  test(`${kernel}: a kernel that was replaced by itself, with its memory as it was, is noticed by its vCPUs`, async (t) => {
    const { first, second } = await twoBoots(kernel);
    const known = [knownKernel(kernel)];
    const guest = await Guest.attach(first.domain, known);
    await guest.verifyRuns();
    t.is(guest.kernel.crashed, 0);
    first.domain.vcpus = second.domain.vcpus;
    // All is there yet, and links and counts agree: of what was.
    t.true(names(guest).includes('before'));
    const error = await t.throwsAsync(guest.verifyRuns(), { instanceOf: DomschedError });
    t.is(error.code, 'kernel-unidentified');
    t.true(names(await Guest.attach(first.domain, known)).includes('after'));
    // Or what was has become links without end.
    guest.snapshot = () => {
      throw new DomschedError('walk-unbounded', 'the guest links more than 4194304 objects', {});
    };
    await t.throwsAsync(guest.take(), { code: 'kernel-unidentified', message: /kexec/ });
  });

  test(`${kernel}: replaced at the very same place, it is noticed by its per-CPU areas`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    const area = guest.cpus[1]!.area;
    synthetic.word(synthetic.symbol('__per_cpu_offset') + 8n, area + 0x20_0000n);
    synthetic.put(synthetic.queues[1]!, 'rq', 'nr_running', 99);
    await t.throwsAsync(guest.take({ limitMs: 1 }), { code: 'kernel-unidentified', message: /kexec/ });
  });
}

test('a guest whose kernel has no process yet is still booting: its layout is not blamed', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel, tasks: [] });
    const early = await t.throwsAsync(Guest.attach(synthetic.domain, [knownKernel(kernel)]), {
      instanceOf: DomschedError,
    });
    t.is(early.code, 'guest-booting');
    t.regex(early.message, /still booting/);
    // Before its run queues are set up.
    for (const queue of synthetic.queues) synthetic.put(queue, 'rq', 'idle', 0n);
    await t.throwsAsync(Guest.attach(synthetic.domain, [knownKernel(kernel)]), { code: 'guest-booting' });
    // Of a wrong layout nothing of the kind is said.
    synthetic.put(synthetic.initTask, 'task_struct', 'pid', 7);
    await t.throwsAsync(Guest.attach(synthetic.domain, [knownKernel(kernel)]), { code: 'layout-disproved' });
  }
});
