import test from 'ava';
import { XenCalls } from '../../../../runtime/hypervisor/xen/calls.ts';
import { vcpuTimes } from '../../../../runtime/hypervisor/xen/vcpu-times.ts';
import { FakeXen } from './fake-xen.ts';

test('a vCPU that was ready at two readings waited when it did not run', (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web', vcpus: 2 });
  const calls = XenCalls.open('4.17', xen.directory);
  t.teardown(() => calls.close());
  let nowMs = 0;
  const clock = vcpuTimes(calls, 5, 2, () => nowMs);
  xen.vcpuState(5, 1, { online: true, blocked: true, initialised: true });
  t.deepEqual(clock.read(), [
    { ranNs: 0, waitedNs: 0, cpu: 0 },
    { ranNs: 0, waitedNs: 0, cpu: 0 },
  ]);
  nowMs += 100;
  xen.vcpuRan(5, 0, 30e6);
  xen.vcpuRan(5, 1, 10e6);
  t.deepEqual(clock.read(), [
    { ranNs: 30e6, waitedNs: 70e6, cpu: 0 },
    { ranNs: 10e6, waitedNs: 0, cpu: 0 },
  ]);
  xen.end(5);
  t.is(clock.read(), undefined);
  t.is(clock.machineCpu?.(0), 0, 'where dom0’s CPU is');
  t.is(clock.machineCpu?.(31), undefined, 'it has no such CPU');
});
