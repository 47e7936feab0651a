import test, { type ExecutionContext } from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import { DomschedError } from '../../../runtime/error.ts';
import type { FakeDomainOptions } from '../../../runtime/hypervisor/fake/domain.ts';
import type { FrameNumber } from '../../../runtime/hypervisor/frame.ts';
import { ModelMemory } from './model-memory.ts';

const WORD = { offset: 0, size: 8 } as const;

/** A guest, an edit of three of its words, and how often the journal was told that it is over. */
function bench(options: FakeDomainOptions<FrameNumber> = {}) {
  const memory = new ModelMemory(options);
  const places = [memory.take(64), memory.take(64), memory.take(64)];
  const draft = new Draft(memory.space);
  for (const place of places) draft.set(place, 8, 7n, 'a word');
  const edit = draft.edit('an edit', [], []);
  const told = { over: 0 };
  const journal = async () => () => {
    told.over += 1;
  };
  const words = () => places.map((place) => memory.load(place, WORD));
  return { memory, domain: memory.domain, space: memory.space, edit, told, journal, words };
}

test('a pause that ends with us: only what is harmless in parts is begun', async (t) => {
  const { domain, space, edit, words } = bench({ pauseEndsWithUs: true });
  const guard = await domain.pause.acquire();
  const error = await fails(t, commit(domain, space, guard, edit));
  t.is(error.code, 'refused');
  t.regex(error.message, /domsched is killed.*QMP socket of ours.*nothing was written/s);
  t.is(domain.recorder.count('write'), 0);
  await commit(domain, space, guard, { ...edit, harmlessInParts: true });
  t.deepEqual(words(), [7n, 7n, 7n]);
});

async function fails(t: ExecutionContext, promise: Promise<void>): Promise<DomschedError> {
  return (await t.throwsAsync(promise, { instanceOf: DomschedError })) as DomschedError;
}

const BEFORE = {
  'resumed by somebody else': ['edit-conflict', ({ domain }) => domain.resumeByOther()],
  'resumed and paused again': [
    'edit-conflict',
    ({ domain }) => {
      domain.resumeByOther();
      domain.stopByOther();
    },
  ],
  reset: ['edit-conflict', ({ domain }) => domain.reset()],
  'on its way to another host': ['refused', ({ domain }) => (domain.migration = 'active')],
  ended: ['domain-gone', ({ domain }) => domain.destroy()],
} satisfies Record<string, [string, (of: ReturnType<typeof bench>) => void]>;

for (const [what, [code, happen]] of Object.entries(BEFORE)) {
  test(`${what} before the first byte: nothing is written, and the journal knows`, async (t) => {
    const all = bench();
    const { domain, space, edit, told } = all;
    const guard = await domain.pause.acquire();
    const error = await fails(
      t,
      commit(domain, space, guard, edit, async () => {
        happen(all);
        return all.journal();
      }),
    );
    t.is(error.code, code as DomschedError['code']);
    t.regex(error.message, /nothing was written/);
    t.is(domain.recorder.count('write'), 0);
    t.is(told.over, 1);
    t.false(domain.keptOnDeath);
  });
}

const MEANWHILE = {
  'resumed by somebody else': [/runs.*watch its console/, ({ domain }) => domain.resumeByOther()],
  'resumed and paused again': [
    /resumed, woke up or reset.*watch its console/,
    ({ domain }) => {
      domain.resumeByOther();
      domain.stopByOther();
    },
  ],
  'on its way to another host': [/migrated.*stays paused/, ({ domain }) => (domain.migration = 'active')],
  'saved by somebody, which is over': [
    /saved.*stays paused/,
    ({ domain }) => (domain.migration = 'completed'),
  ],
} satisfies Record<string, [RegExp, (of: ReturnType<typeof bench>) => void]>;

for (const [what, [message, happen]] of Object.entries(MEANWHILE)) {
  for (const fault of [false, true]) {
    test(`${what} between two words${fault ? ', of which one fails' : ''}: it may be torn`, async (t) => {
      const all = bench();
      const { domain, space, edit, told, journal, words } = all;
      const guard = await domain.pause.acquire();
      let written = 0;
      domain.recorder.onCall(({ kind }) => {
        if (kind !== 'write') return;
        written += 1;
        if (written === 2) happen(all);
        if (written === 3 && fault) throw new Error('no');
      });
      const error = await fails(t, commit(domain, space, guard, edit, journal));
      t.is(error.code, 'edit-torn');
      t.is(error.exitCode, 1);
      t.is(error.details.restored, false);
      t.regex(error.message, message);
      t.is(told.over, 0, 'the journal is kept');
      t.deepEqual(words(), fault ? [7n, 7n, 0n] : [7n, 7n, 7n], 'old words have no place in what has run on');
      const state = await domain.state();
      await guard.release();
      t.is(await domain.state(), state, 'a copy of it goes on from where it stands');
    });
  }
}

test('nothing happened: one proof before the first byte, one after the last, and the journal is told', async (t) => {
  const { domain, space, edit, told, journal, words } = bench();
  await using guard = await domain.pause.acquire();
  await commit(domain, space, guard, edit, journal);
  const kinds = domain.recorder.calls
    .map(({ kind }) => kind)
    .filter((kind) => kind === 'prove' || kind === 'write');
  t.deepEqual(kinds, ['prove', 'write', 'write', 'write', 'prove']);
  t.is(told.over, 1);
  t.deepEqual(words(), [7n, 7n, 7n]);
});

test('resumed while the old bytes are put back: torn too', async (t) => {
  const { domain, space, edit, told, journal } = bench();
  const guard = await domain.pause.acquire();
  let written = 0;
  domain.recorder.onCall(({ kind }) => {
    if (kind !== 'write') return;
    written += 1;
    if (written === 3) throw new Error('no');
    if (written === 5) domain.resumeByOther();
  });
  const error = await fails(t, commit(domain, space, guard, edit, journal));
  t.is(error.code, 'edit-torn');
  t.is(told.over, 0);
});

test('resumed after the last byte: the edit is whole, and that is all that was promised', async (t) => {
  const { domain, space, edit, told, journal, words } = bench();
  const guard = await domain.pause.acquire();
  let proofs = 0;
  domain.recorder.onCall(({ kind }) => {
    if (kind === 'prove') proofs += 1;
    if (proofs === 2) domain.resumeByOther();
  });
  await commit(domain, space, guard, edit, journal);
  t.deepEqual(words(), [7n, 7n, 7n]);
  t.is(told.over, 1);
});

test('resumed after the proof, in the last moment before the first byte: nothing is written', async (t) => {
  const { domain, space, edit, told, journal } = bench();
  const guard = await domain.pause.acquire();
  guard.keepOnDeath = () => {
    if (domain.recorder.count('write') === 0 && told.over === 0) domain.resumeByOther();
  };
  const error = await fails(t, commit(domain, space, guard, edit, journal));
  t.is(error.code, 'edit-conflict');
  t.is(domain.recorder.count('write'), 0);
  t.is(told.over, 1);
});
