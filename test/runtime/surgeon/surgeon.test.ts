import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import type { Holder } from '../../../runtime/surgeon/holder.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';
import { knownKernel, O1_KERNEL } from '../guest/synthetic.ts';

test('a guest that has halted is not called asleep', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  const never: Holder = {
    techniques: ['park'],
    automatic: ['park'],
    renicesHeld: false,
    invariants: () => [],
    checkLocks: () => undefined,
    standing: () => 'sleeping',
    planHold: () => null,
    planRelease: () => null,
    planRenice: () => 'later',
  };
  const surgeon = new Surgeon(domain, guest, never);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  const hold = () => surgeon.hold(process, { limitMs: 1 });
  await t.throwsAsync(hold, { code: 'timeout', message: /may be asleep/ });
  const [vcpu] = domain.vcpus;
  domain.vcpus = [{ ...vcpu!, halted: true, rflags: 0x202n }];
  await t.throwsAsync(hold, { code: 'timeout', message: /may be asleep/ });
  domain.vcpus = [{ ...vcpu!, halted: true, rflags: 0x2n }];
  await t.throwsAsync(hold, {
    code: 'timeout',
    message: /1 of the guest's 1 CPUs have halted .* panicked or was shut down/,
  });
});

test('registers that were read in one pause are not there in the next', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  // In the kernel, where GS leads to what the kernel has of its CPU.
  const [cpu] = guest.cpus;
  const [vcpu] = await domain.registers.read();
  domain.vcpus = [{ ...vcpu!, cpl: 0, gsBase: cpu!.pda ?? cpu!.area }];
  const seen: number[] = [];
  const holder: Holder = {
    techniques: ['park', 'state'],
    automatic: ['park'],
    renicesHeld: false,
    needsRegisters: (techniques) => techniques.includes('state'),
    observe: (vcpus) => void seen.push(vcpus.size),
    invariants: () => [],
    checkLocks: () => undefined,
    standing: () => 'held',
    planHold: () => null,
    planRelease: () => null,
    planRenice: () => 'later',
  };
  const surgeon = new Surgeon(domain, guest, holder);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  for (const technique of ['state', 'park'] as const)
    t.is((await surgeon.hold(process, { techniques: [technique] })).outcome, 'unchanged');
  t.deepEqual(seen, [1, 0]);
  t.is(domain.pause.depth, 0);
});
