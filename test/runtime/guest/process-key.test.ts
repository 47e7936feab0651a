import test from 'ava';
import { processKey } from '../../../runtime/guest/process-key.ts';
import { withoutAddresses } from '../../../runtime/memory/address.ts';

const some = { pid: 4711, address: 0xffff_8881_0234_5678n, startTimeNs: 123_456_789 };

test('a key tells processes, boots and domains apart, and says nothing of any but the domain', (t) => {
  const key = processKey('qemu:unix:/x', 'slide-1', some);
  t.is(processKey('qemu:unix:/x', 'slide-1', { ...some }), key);
  const others = [
    processKey('qemu:unix:/y', 'slide-1', some),
    processKey('qemu:unix:/x', 'slide-2', some),
    processKey('qemu:unix:/x', 'slide-1', { ...some, pid: 4712 }),
    processKey('qemu:unix:/x', 'slide-1', { ...some, address: some.address + 64n }),
    processKey('qemu:unix:/x', 'slide-1', { ...some, startTimeNs: 1 }),
  ];
  t.is(new Set([key, ...others]).size, 6);
  t.true(key.startsWith('qemu:unix:/x@'));
  t.notRegex(key.slice('qemu:unix:/x@'.length), /4711|ffff888102345678|slide/);
});

test('no kernel address is left in a message, and nothing else is taken out', (t) => {
  const message = (address: string) => `task ${address} in rq[0] has another prio`;
  for (const address of ['ffff888102345678', '0xffffffff81000000', 'ff11000102345678', 'FFFF888102345678'])
    t.is(withoutAddresses(message(address)), message('(address)'));
  const build = 'build-id ffff8881023456789abcdef0123456789abcdef0 of pid 4711, 6.1.0-56';
  t.is(withoutAddresses(build), build);
});
