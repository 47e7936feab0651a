import test from 'ava';
import {
  machineName,
  nodeBytes,
  optionOf,
  ramBytes,
} from '../../../../runtime/hypervisor/vmm/command-line.ts';

test("a machine's name is the one that its manager gave it", (t) => {
  const named = (...args: string[]) => machineName(['qemu-system-x86_64', ...args]);
  t.is(named('-name', 'guest=web,debug-threads=on'), 'web', "libvirt's");
  t.is(named('-name', 'web,debug-threads=on'), 'web', 'by hand');
  t.is(named('-name', 'process=qemu:x,guest=a,,b'), 'a,b', 'commas are doubled');
  t.is(named('-name', 'old', '--name', 'new'), 'new', 'the last one counts');
  const proxmox = ['-id', '100', '-name', 'web,debug-threads=on', '-pidfile', '/var/run/qemu-server/100.pid'];
  t.is(named(...proxmox), '100', 'the number that qm takes');
  t.is(named('-m', '512'), undefined);
  t.is(named('-name', 'debug-threads=on'), undefined);
  t.is(machineName(['firecracker', '--id', 'vm1']), 'vm1');
});

test('bytes of RAM, in all the ways of -m', (t) => {
  const MIB = 2 ** 20;
  const of = (m: string) => ramBytes(['qemu-system-x86_64', '-m', m]) as number;
  t.is(of('384'), 384 * MIB);
  t.is(of('5G'), 5 * 1024 * MIB);
  t.is(of('size=524288k'), 512 * MIB, "libvirt's");
  t.is(of('size=2048M,slots=4,maxmem=8G'), 2048 * MIB);
  t.is(of('1024,slots=4,maxmem=8G'), 1024 * MIB);
  t.is(of('nonsense'), undefined as never);
  t.is(ramBytes(['qemu-system-x86_64']), undefined);
  t.is(optionOf(['-m'], 'm'), undefined, 'an option without its value');
});

test('memory nodes, in the order of their numbers', (t) => {
  const MIB = 2 ** 20;
  const backend = (id: string, size: string) => ['-object', `memory-backend-ram,id=${id},size=${size}`];
  const node = (value: string) => ['-numa', `node,${value}`];
  const two = ['-m', '512', ...backend('a', '128M'), ...backend('b', '384M')];
  t.deepEqual(nodeBytes([...two, ...node('memdev=a,cpus=0'), ...node('memdev=b')]), [128 * MIB, 384 * MIB]);
  t.deepEqual(nodeBytes([...two, ...node('nodeid=1,memdev=a'), ...node('nodeid=0,memdev=b')]), [
    384 * MIB,
    128 * MIB,
  ]);
  const json = ['-object', '{"qom-type":"memory-backend-memfd","id":"ram-node0","size":134217728}'];
  t.deepEqual(nodeBytes([...json, ...node('nodeid=0,cpus=0-1,memdev=ram-node0')]), [128 * MIB], "libvirt's");
  t.deepEqual(
    nodeBytes([...two, ...node('memdev=a'), ...node('memdev=lost')]),
    [],
    'an object that is not there',
  );
  t.deepEqual(nodeBytes(['-object', '{"id":', ...node('memdev=a')]), []);
  t.deepEqual(nodeBytes(['-m', '512', ...node('cpus=0')]), [], 'all memory is one');
});
