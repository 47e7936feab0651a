import { copyFileSync } from 'node:fs';
import test from 'ava';
import { FakeXen } from './fake-xen.ts';

test('domains that can be looked at are listed: not dom0, not the store, not the dying', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web', frames: 64 });
  xen.domain({ domid: 9, name: 'mail', hvm: true, frames: 10, vcpus: 1 });
  xen.domain({ domid: 6, name: 'store' });
  xen.set('xenstore', 1, 6);
  xen.domain({ domid: 7, name: 'dead' });
  xen.end(7, true);
  xen.otherPause(9, 1);
  await using host = await xen.connect();
  t.is(host.version, '4.17');
  t.deepEqual(await host.list(), [
    {
      identity: {
        id: '05060708-090a-0b0c-0d0e-0f1011121314',
        name: 'web',
        hypervisor: 'xen',
        connection: 'xen:',
      },
      state: 'running',
      vcpus: 2,
      memoryBytes: 64 * 4096,
    },
    {
      identity: {
        id: '090a0b0c-0d0e-0f10-1112-131415161718',
        name: 'mail',
        hypervisor: 'xen',
        connection: 'xen:',
      },
      state: 'paused',
      vcpus: 1,
      memoryBytes: 10 * 4096,
    },
  ]);
});

test('the file that a kernel was started from is told where libxl has noted it', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.domain({ domid: 6, name: 'mail' });
  xen.kernel(5, '/var/lib/xen/boot/vmlinuz');
  await using host = await xen.connect();
  const files = (await host.list()).map(({ identity }) => identity.kernelFile);
  t.deepEqual(files, ['/var/lib/xen/boot/vmlinuz', undefined]);
});

test('two domains of one UUID, or one without, go by their numbers; one without a name as well', async (t) => {
  using xen = new FakeXen();
  for (const domid of [5, 6, 7]) xen.domain({ domid, name: domid === 7 ? '' : `vm${domid}` });
  for (const domid of [5, 6]) xen.set('uuid', 3, domid);
  xen.set('uuid', 0, 7);
  await using host = await xen.connect();
  const identities = (await host.list()).map(({ identity }) => identity);
  t.deepEqual(
    identities.map(({ id, name }) => [id, name]),
    [
      ['5', 'vm5'],
      ['6', 'vm6'],
      ['7', 'domain-7'],
    ],
  );
  await t.throwsAsync(host.open('8'), { code: 'domain-not-found' });
});

test('a domain that ends is let go of, whoever asks', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await using host = await xen.connect();
  const domain = await host.open('05060708-090a-0b0c-0d0e-0f1011121314');
  xen.end(5);
  domain.tick();
  t.is(await domain.state(), 'gone');
  t.deepEqual(await host.list(), []);
});

const REFUSALS: readonly [string, (xen: FakeXen) => void, RegExp][] = [
  [
    'no Xen',
    (xen) => {
      xen.file('sys/hypervisor/type', undefined);
      xen.file('proc/xen/capabilities', undefined);
    },
    /no dom0/,
  ],
  ['xenfs not mounted', (xen) => xen.file('proc/xen/capabilities', undefined), /mount -t xenfs/],
  ['a guest', (xen) => xen.file('proc/xen/capabilities', '\n'), /a Xen guest, not its dom0/],
  ['no privcmd', (xen) => xen.file('dev/xen/privcmd', undefined), /modprobe xen-privcmd/],
  ['an unknown release', (xen) => xen.file('sys/hypervisor/version/minor', '3\n'), /Xen 4\.3 is none/],
  [
    'libraries of another release',
    (xen) => xen.file('sys/hypervisor/version/minor', '18\n'),
    /libxenctrl\.so\.4\.18/,
  ],
  ['no libraries', (xen) => xen.file('libxenctrl.so.4.17', undefined), /libxenmisc4\.17/],
  ['no foreign memory', (xen) => xen.file('libxenforeignmemory.so.1', undefined), /libxenforeignmemory1/],
  [
    'a hypervisor that is another than it says',
    (xen) => xen.set('version', (4 << 16) | 20),
    /Xen 4\.20 runs/,
  ],
  ['structures of another size', (xen) => xen.set('info_size', 108), /in 108 bytes/],
];

for (const [name, change, message] of REFUSALS) {
  test(`refused with the reason: ${name}`, async (t) => {
    using xen = new FakeXen();
    change(xen);
    await t.throwsAsync(xen.connect(), { code: 'host-unreachable', message });
  });
}

test('a library that lacks a function is refused by its name', async (t) => {
  using xen = new FakeXen();
  xen.file('libxenctrl.so.4.17', undefined);
  copyFileSync('/lib/x86_64-linux-gnu/libm.so.6', `${xen.directory}/libxenctrl.so.4.17`);
  await t.throwsAsync(xen.connect(), {
    code: 'host-unreachable',
    message: /has no function void \*xc_interface_open/,
  });
});

test('a 32-bit PV guest is refused when it is opened, others are not affected', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'old' });
  xen.domain({ domid: 6, name: 'new' });
  xen.set('width', 4, 5);
  await using host = await xen.connect();
  await t.throwsAsync(host.open('5'), { code: 'refused', message: /32-bit/ });
  t.is((await host.open('6')).identity.name, 'new');
});

test('registers of a size that is not known are refused when an HVM guest is opened', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'pvh', hvm: true });
  xen.set('hvm_size', 1024);
  await using host = await xen.connect();
  await t.throwsAsync(host.open('5'), { code: 'host-unreachable', message: /registers/ });
  xen.set('hvm_size', 1040);
  await t.throwsAsync(host.open('5'), { code: 'host-unreachable', message: /registers/ });
});
