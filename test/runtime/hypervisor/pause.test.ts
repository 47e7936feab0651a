import test from 'ava';
import fc from 'fast-check';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import type { PauseGuard } from '../../../runtime/hypervisor/types.ts';

test('pauses nest: one stop, one resume, whatever the order of releases', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(7), { minLength: 1, maxLength: 30 }),
      fc.boolean(),
      async (steps, paused) => {
        const domain = new FakeDomain({ paused });
        const held: PauseGuard[] = [];
        let stops = 0;
        for (const step of steps) {
          if (step < 4 || held.length === 0) {
            if (held.length === 0) stops += 1;
            held.push(await domain.pause.acquire());
          } else {
            const [guard] = held.splice(step % held.length, 1);
            await guard!.release();
            await guard!.release();
          }
          if (domain.pause.depth !== held.length) return false;
          if ((await domain.state()) !== (held.length > 0 || paused ? 'paused' : 'running')) return false;
        }
        await Promise.all(held.map((guard) => guard.release()));
        const resumes = domain.recorder.count('resume');
        return domain.recorder.count('stop') === stops && resumes === (paused ? 0 : stops);
      },
    ),
  );
  t.pass();
});

test('a domain found paused stays paused', async (t) => {
  const domain = new FakeDomain({ paused: true });
  {
    await using guard = await domain.pause.acquire();
    t.true(guard.foundPaused);
  }
  t.is(await domain.state(), 'paused');
  t.is(domain.recorder.count('resume'), 0);
});

test('an exception in the block resumes', async (t) => {
  const domain = new FakeDomain();
  await t.throwsAsync(
    async () => {
      await using guard = await domain.pause.acquire();
      t.true(guard.valid);
      throw new Error('in the middle');
    },
    { message: 'in the middle' },
  );
  t.is(await domain.state(), 'running');
});

test('resumed by someone else: the guard is no proof any longer and resumes nothing', async (t) => {
  const domain = new FakeDomain();
  const guard = await domain.pause.acquire();
  const { generation } = domain;
  domain.resumeByOther();
  t.false(guard.valid);
  t.not(domain.generation, generation);
  await guard.release();
  t.is(domain.recorder.count('resume'), 0);
});

test('reset under our pause: the guard is no proof, but its release still resumes', async (t) => {
  const domain = new FakeDomain();
  const guard = await domain.pause.acquire();
  domain.reset();
  t.false(guard.valid);
  await guard.release();
  t.is(await domain.state(), 'running');
});

test('a stop that fails leaves nothing counted; closing gives everything back', async (t) => {
  const domain = new FakeDomain();
  domain.recorder.failNth(1, () => new Error('no'), ['stop']);
  await t.throwsAsync(domain.pause.acquire(), { message: 'no' });
  t.is(domain.pause.depth, 0);
  await domain.pause.acquire();
  await domain.pause.acquire();
  await domain.close();
  t.is(await domain.state(), 'running');
});
