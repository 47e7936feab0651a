import test from 'ava';
import { connect, connectAll, Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { guestFrame } from '../../../runtime/hypervisor/frame.ts';
import { openDomain } from '../../../runtime/watch/choose.ts';

test('a write that fails in the middle says where; nothing is written when a frame is not RAM', (t) => {
  const domain = new FakeDomain({ ram: [{ first: 0, count: 4 }] });
  const before = domain.image.clone();
  const bytes = Uint8Array.of(1);
  const write = (frame: number) => ({ frame: guestFrame(frame), offset: 0, bytes });
  t.throws(() => domain.writeFrames.write([write(1), write(7)]), { code: 'frame-unmapped' });
  t.deepEqual(domain.image.differences(before), []);
  domain.recorder.failNth(2, () => new Error('gone wrong'), ['write']);
  const error = t.throws(() => domain.writeFrames.write([write(1), write(2), write(3)]), {
    code: 'memory-fault',
  });
  t.is((error as unknown as { details: { index: number } }).details.index, 1);
  t.deepEqual(domain.image.differences(before), [4096]);
});

test('--connect: what is wrong is a usage error that names what is right', async (t) => {
  for (const spec of [
    '',
    'qemu',
    'kvm:x',
    'qemu:/path',
    'qemu:unix:/a,nonsense=1',
    'dump:',
    'dump:/a,low=-1',
  ]) {
    const error = await t.throwsAsync(connect(spec), { code: 'usage' }, spec);
    t.regex(error!.message, /qemu:unix:/);
  }
});

test('no machine in the default places is an empty list', async (t) => {
  await using hosts = await connectAll(['dump:/nonexistent/dump']);
  const [entry] = await hosts.list();
  t.true('error' in entry!.listing && entry!.listing.error.code === 'host-unreachable');
  await t.throwsAsync(openDomain(hosts, 'dump'), { code: 'host-unreachable' });
  await t.throwsAsync(
    openDomain(hosts, 'db'),
    { code: 'host-unreachable' },
    'it may be what did not tell its name',
  );
});

test('domains by name: unknown, ambiguous, by id, by the name as tables show it', async (t) => {
  const twins = [new FakeDomain({ name: 'web', id: '1' }), new FakeDomain({ name: 'web', id: '2' })];
  const odd = new FakeDomain({ name: 'odd\n', id: '3' });
  await using hosts = new Hosts([new FakeHost([...twins, odd])]);
  t.is((await openDomain(hosts, 'odd\\x0a')).identity.id, '3');
  await t.throwsAsync(openDomain(hosts, 'db'), { code: 'domain-not-found' });
  await t.throwsAsync(openDomain(hosts, 'web'), { code: 'domain-ambiguous' });
  t.is((await openDomain(hosts, '2')).identity.id, '2');
});

test.serial(
  'without names DOMSCHED_CONNECT says where to look, and it is checked as an option is',
  async (t) => {
    const before = process.env.DOMSCHED_CONNECT;
    t.teardown(() => {
      process.env.DOMSCHED_CONNECT = before;
    });
    process.env.DOMSCHED_CONNECT = ' dump:/nowhere/a  dump:/nowhere/b ';
    await using hosts = await connectAll([]);
    const listed = await hosts.list();
    t.deepEqual(
      listed.map(({ listing }) => listing.identity.connection),
      ['dump:/nowhere/a', 'dump:/nowhere/b'],
    );
    process.env.DOMSCHED_CONNECT = 'nothing:';
    await t.throwsAsync(connectAll([]), { code: 'usage' });
  },
);
