import test from 'ava';
import fc from 'fast-check';
import { CachingReader } from '../../../runtime/hypervisor/caching-reader.ts';
import { connect, connectAll, Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { guestFrame } from '../../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../../runtime/hypervisor/frame-batch.ts';
import { MeteredReader, MeteredWriter } from '../../../runtime/hypervisor/metered.ts';

test('cached reads equal direct ones, for any limit, over generations', (t) => {
  const range = fc.record({
    frame: fc.nat(12),
    offset: fc.nat(4000),
    length: fc.integer({ min: 1, max: 96 }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.array(range, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 6 }),
      (rounds, limit) => {
        const domain = new FakeDomain({ ram: [{ first: 0, count: 10 }] });
        const cache = new CachingReader(domain.frames, () => domain.generation, limit);
        const cached = new FrameBatch();
        const direct = new FrameBatch();
        rounds.forEach((ranges, round) => {
          for (let frame = 0; frame < 10; frame++) {
            domain.image.store(frame * 4096, new Uint8Array(4096).fill(round * 16 + frame));
          }
          domain.tick();
          cached.clear();
          direct.clear();
          for (const { frame, offset, length } of ranges) {
            cached.add(guestFrame(frame), offset, length);
            direct.add(guestFrame(frame), offset, length);
          }
          if (cache.read(cached) !== domain.frames.read(direct)) throw new Error('failures differ');
          if (
            Buffer.compare(cached.bytes.subarray(0, cached.used), direct.bytes.subarray(0, direct.used)) !== 0
          ) {
            throw new Error('content differs');
          }
          for (let i = 0; i < cached.count; i++) {
            if (cached.status[i] !== direct.status[i]) throw new Error('status differs');
          }
        });
      },
    ),
  );
  t.pass();
});

test('within a generation a frame is read once', (t) => {
  const domain = new FakeDomain();
  const cache = new CachingReader(domain.frames, () => domain.generation);
  const batch = new FrameBatch();
  for (let i = 0; i < 8; i++) batch.add(guestFrame(3), i * 8, 8);
  cache.read(batch);
  cache.read(batch);
  t.is(domain.recorder.count('read'), 1);
  t.is(cache.misses, 1);
  t.is(cache.hits, 15);
});

test('metrics count calls, ranges, bytes and failures', (t) => {
  const domain = new FakeDomain({ ram: [{ first: 0, count: 4 }] });
  const reader = new MeteredReader(domain.frames);
  const batch = new FrameBatch();
  batch.add(guestFrame(1), 0, 100);
  batch.add(guestFrame(9), 0, 28);
  t.is(reader.read(batch), 1);
  t.is(batch.status[1], FRAME_STATUS.absent);
  t.like(reader.metrics, { calls: 1, ranges: 2, bytes: 128, failed: 1 });
  const writer = new MeteredWriter(domain.writeFrames);
  writer.write([{ frame: guestFrame(1), offset: 4, bytes: Uint8Array.of(1, 2) }]);
  t.throws(() => writer.write([{ frame: guestFrame(9), offset: 0, bytes: Uint8Array.of(1) }]), {
    code: 'frame-unmapped',
  });
  t.like(writer.metrics, { calls: 2, ranges: 2, bytes: 2, failed: 1 });
});

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
    'qemu:unix:relative',
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
  await t.throwsAsync(hosts.open('dump'), { code: 'host-unreachable' });
});

test('domains by name: unknown, ambiguous, by id', async (t) => {
  const twins = [new FakeDomain({ name: 'web', id: '1' }), new FakeDomain({ name: 'web', id: '2' })];
  await using hosts = new Hosts([new FakeHost(twins)]);
  await t.throwsAsync(hosts.open('db'), { code: 'domain-not-found' });
  await t.throwsAsync(hosts.open('web'), { code: 'domain-ambiguous' });
  t.is((await hosts.open('2')).identity.id, '2');
});
