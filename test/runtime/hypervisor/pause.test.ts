import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { PauseCounter } from '../../../runtime/hypervisor/pause-counter.ts';
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

test('who is asked for a pause is asked at once, when nothing else is under way; without a question nothing is', async (t) => {
  for (const asks of [true, undefined]) {
    const done: string[] = [];
    const step = (what: string) => async () => {
      done.push(what);
      await setImmediate();
      done.push(`${what}${what.endsWith('p') ? 'ped' : 'ed'}`);
    };
    const counter = new PauseCounter({
      stop: async () => {
        await step('stop')();
        return { foundPaused: false };
      },
      prove: async () => ({ generation: 0, answers: '' }),
      isQuiet: () => true,
      resume: step('resum'),
      ...(asks && { asks }),
    });
    const first = counter.acquire();
    t.deepEqual(done, asks ? ['stop'] : []);
    const second = counter.acquire();
    const guard = await first;
    await (await second).release();
    t.deepEqual(done, ['stop', 'stopped'], 'one stop for both');
    const released = guard.release();
    const again = counter.acquire();
    await Promise.all([released, again]);
    // The second stop waits for the end of the resume.
    t.deepEqual(done.slice(2), ['resum', 'resumed', 'stop', 'stopped']);
    await (await again).release();
    t.is(counter.depth, 0);
  }
});

test('a stop that fails at once leaves the way free for the next', async (t) => {
  let fails = true;
  const counter = new PauseCounter({
    stop: async () => {
      if (fails) throw new DomschedError('timeout', 'no answer', {});
      return { foundPaused: false };
    },
    prove: async () => ({ generation: 0, answers: '' }),
    isQuiet: () => true,
    resume: async () => {},
    asks: true,
  });
  await t.throwsAsync(counter.acquire(), { code: 'timeout' });
  fails = false;
  const guard = await counter.acquire();
  t.is(counter.depth, 1);
  await guard.release();
});

/** A backend that waits for nothing. */
function atOnce(done: string[], fails: { stop?: boolean; resume?: boolean } = {}): PauseCounter {
  const step = (what: 'stop' | 'resume') => {
    if (fails[what]) throw new DomschedError('protocol', `no ${what}`, {});
    done.push(what);
  };
  return new PauseCounter({
    stop: () => {
      step('stop');
      return { foundPaused: false };
    },
    prove: async () => ({ generation: 0, answers: '' }),
    isQuiet: () => true,
    resume: () => step('resume'),
  });
}

test('a backend that waits for nothing: the pause lets the caller go on first, its end is there when the call returns', async (t) => {
  const done: string[] = [];
  const counter = atOnce(done);
  const acquired = counter.acquire();
  t.deepEqual(done, []);
  const guard = await acquired;
  const released = guard.release();
  t.deepEqual(done, ['stop', 'resume']);
  t.false(guard.valid);
  // One that waits in the lane goes before what is asked for after it.
  const next = counter.acquire();
  const all = counter.releaseAll();
  await Promise.all([released, next, all]);
  t.deepEqual(done, ['stop', 'resume', 'stop', 'resume']);
  t.false((await next).valid);
  t.is(counter.depth, 0);
});

test('a backend that waits for nothing and fails: the promise says so, and the next may try', async (t) => {
  const done: string[] = [];
  const fails = { stop: true, resume: false };
  const counter = atOnce(done, fails);
  await t.throwsAsync(counter.acquire(), { code: 'protocol', message: 'no stop' });
  t.is(counter.depth, 0);
  fails.stop = false;
  const guard = await counter.acquire();
  fails.resume = true;
  await t.throwsAsync(guard.release(), { code: 'protocol', message: 'no resume' });
  fails.resume = false;
  await (await counter.acquire()).release();
  t.deepEqual(done, ['stop', 'stop', 'resume']);
});
