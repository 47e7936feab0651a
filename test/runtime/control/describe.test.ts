import test from 'ava';
import { describe } from '../../../runtime/control/local.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { knownKernel, O1_KERNEL, SyntheticGuest } from '../guest/synthetic.ts';

test('how many CPUs a guest has is said by itself where its process does not show it', async (t) => {
  const { domain } = await SyntheticGuest.make({ kernel: O1_KERNEL, name: 'web', cpus: 3 });
  const host = new FakeHost([domain]);
  const [listing] = await host.list();
  const entry = (vcpus: number | null) =>
    describe(host, { ...listing!, vcpus } as typeof listing & object, [knownKernel(O1_KERNEL)]);
  t.like(await entry(null), { domain: 'web', vcpus: 3, error: null });
  t.like(await entry(4), { vcpus: 4 });
});

test('a machine that may not be edited as it runs says so before anybody tries', async (t) => {
  const { domain } = await SyntheticGuest.make({ kernel: O1_KERNEL, name: 'web' });
  const host = new FakeHost([domain]);
  const [listing] = await host.list();
  t.deepEqual((await describe(host, listing!, [knownKernel(O1_KERNEL)])).ways?.techniques, [
    'splice',
    'state',
  ]);
  const refused = Object.assign(domain, {
    editRefusal: () => new DomschedError('refused', 'web is being migrated'),
  });
  host.domains.splice(0, 1, refused);
  t.deepEqual((await describe(host, listing!, [knownKernel(O1_KERNEL)])).ways, {
    techniques: [],
    refused: { all: 'web is being migrated' },
  });
});
