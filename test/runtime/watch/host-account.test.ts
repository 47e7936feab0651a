import test from 'ava';
import type { VcpuTime } from '../../../runtime/hypervisor/types.ts';
import { HostAccount } from '../../../runtime/watch/host-account.ts';

function accountOf(...readings: (VcpuTime[] | undefined)[]) {
  return new HostAccount({ read: () => readings.shift(), close: () => {} });
}

test('the difference of two looks is told, and what was counted at rest by the look after', (t) => {
  const account = accountOf(
    [{ ranNs: 100, waitedNs: 10 }],
    [{ ranNs: 150, waitedNs: 10 }],
    [{ ranNs: 180, waitedNs: 40 }],
  );
  account.look(1_000);
  t.is(account.view, undefined, 'nothing to compare with');
  account.look(1_500);
  t.deepEqual(account.view, { elapsedMs: 500, vcpus: [{ ranNs: 50, waitedNs: 0 }] });
  account.rest();
  t.deepEqual(account.view!.vcpus, [{ ranNs: 0, waitedNs: 0 }]);
  account.look(2_500);
  t.deepEqual(account.view, { elapsedMs: 1_000, vcpus: [{ ranNs: 30, waitedNs: 30 }] });
});

test('other vCPUs, or a host that does not tell, cannot be compared', (t) => {
  const one = { ranNs: 1, waitedNs: 0 };
  const account = accountOf([one], [one, one], undefined, [one]);
  for (const nowMs of [1, 2, 3, 4]) {
    account.look(nowMs);
    t.is(account.view, undefined);
  }
  t.notThrows(() => account.rest());
  const none = new HostAccount(undefined);
  none.look(1);
  t.is(none.view, undefined);
});
