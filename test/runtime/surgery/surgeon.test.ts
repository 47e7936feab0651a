import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import type { Holder } from '../../../runtime/surgery/holder.ts';
import { Surgeon } from '../../../runtime/surgery/surgeon.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';
import { knownKernel, O1_KERNEL } from '../guest/synthetic.ts';

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
