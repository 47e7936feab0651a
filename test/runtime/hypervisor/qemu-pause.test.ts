import test from 'ava';
import { FakeQemu } from './fake-qemu.ts';

/** Every member of `RunState` in QEMU's qapi/run-state.json, but the one in which the machine runs. */
const STANDING = [
  ...[
    'debug',
    'inmigrate',
    'internal-error',
    'io-error',
    'paused',
    'postmigrate',
    'prelaunch',
    'finish-migrate',
  ],
  ...[
    'restore-vm',
    'save-vm',
    'shutdown',
    'suspended',
    'watchdog',
    'guest-panicked',
    'colo',
    'preconfig',
    'of-2040',
  ],
];

test('of all states in which a machine stands still, one alone may be edited', async (t) => {
  const provable: string[] = [];
  for (const status of STANDING) {
    await using qemu = await FakeQemu.start();
    qemu.status = status;
    await using domain = await qemu.attach();
    try {
      await using guard = await domain.pause.acquire();
      t.true(guard.foundPaused, status);
      await guard.prove();
      provable.push(status);
    } catch (error) {
      const { code } = error as { code: string };
      t.is(code, status === 'postmigrate' ? 'domain-gone' : 'refused', status);
    }
    t.is(qemu.status, status, 'it stands as it stood');
    t.false(qemu.commands.includes('cont'), status);
  }
  t.deepEqual(provable, ['paused']);
});

test('resumed by somebody else between our stop and the answer after it: stopped again, and no guard lies', async (t) => {
  for (const after of ['stop', 'query-jobs', 'query-migrate', 'query-status']) {
    await using qemu = await FakeQemu.start();
    await using domain = await qemu.attach();
    qemu.onCommand = (command) => {
      if (command !== after || qemu.status === 'running') return;
      qemu.onCommand = () => undefined;
      qemu.cont();
    };
    await using guard = await domain.pause.acquire();
    t.is(qemu.status, 'paused', after);
    t.false(guard.foundPaused, after);
    t.true(guard.valid, after);
    await guard.prove();
    await guard.release();
    t.is(qemu.status, 'running', after);
  }
});

test('resumed whenever we stop it: told so, and it runs', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  qemu.onCommand = (command) => {
    if (command === 'stop') qemu.cont();
  };
  await t.throwsAsync(domain.pause.acquire(), { code: 'edit-conflict', message: /resumes it whenever/ });
  t.is(domain.pause.depth, 0);
  t.is(qemu.status, 'running');
});

test('resumed in our pause: what was heard of it does not matter, the proof fails', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  await using guard = await domain.pause.acquire();
  qemu.cont();
  qemu.stop();
  await t.throwsAsync(guard.prove(), { code: 'edit-conflict' });
  t.false(guard.valid);
});

test('a guest in S3 is no paused one, and its waking up ends a guard without a RESUME', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  qemu.status = 'suspended';
  qemu.event('SUSPEND');
  await domain.state();
  const guard = await domain.pause.acquire();
  t.true(guard.foundPaused);
  await t.throwsAsync(guard.prove(), { code: 'refused', message: /wake it up/ });
  qemu.status = 'running';
  qemu.event('WAKEUP');
  await domain.state();
  t.false(guard.valid);
  await guard.release();
  const again = await domain.pause.acquire();
  t.false(again.foundPaused);
  await again.release();
  t.is(qemu.status, 'running');
});

test('suspended before its stop arrived: refused, and not resumed', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  // No event is on its way yet when we stop it.
  qemu.status = 'suspended';
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /suspended/ });
  t.is(qemu.status, 'suspended');
});

test('stopped by somebody else, of which nothing was heard yet, and refused: it stands as it stood', async (t) => {
  const before: Record<string, (qemu: FakeQemu) => void> = { 'at rest': () => undefined, ...MOVES };
  for (const status of STANDING) {
    for (const [what, move] of Object.entries(before)) {
      await using qemu = await FakeQemu.start();
      await using domain = await qemu.attach();
      qemu.status = status;
      move(qemu);
      const code = await domain.pause.acquire().then(
        (guard) => guard.release(),
        (error: unknown) => (error as { code: string }).code,
      );
      await domain.state();
      t.is(qemu.status, status, what);
      // In S3 a QEMU may have been stopped by us, and otherwise does nothing.
      if (status !== 'suspended') t.false(qemu.commands.includes('cont'), `${status}, ${what}`);
      if (status === 'paused' && what === 'at rest') t.is(code, undefined);
      else t.is(code, status === 'postmigrate' && what === 'at rest' ? 'domain-gone' : 'refused');
    }
  }
});

test('a QEMU that stops a machine in S3 too: refused, and left in S3', async (t) => {
  await using qemu = await FakeQemu.start();
  qemu.stopsSleep = true;
  await using domain = await qemu.attach();
  qemu.status = 'suspended';
  await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /wake it up/ });
  await domain.state();
  t.is(qemu.status, 'suspended');
});

const MOVES: Record<string, (qemu: FakeQemu) => void> = {
  migration: (qemu) => (qemu.migration = { status: 'active' }),
  'the setup of a migration': (qemu) => (qemu.migration = { status: 'setup' }),
  'a migration of a kind to come': (qemu) => (qemu.migration = { status: 'of-2040' }),
  'a snapshot being saved': (qemu) => (qemu.jobs = [{ id: 's', type: 'snapshot-save', status: 'running' }]),
  'a snapshot being loaded': (qemu) => (qemu.jobs = [{ id: 's', type: 'snapshot-load', status: 'created' }]),
};

for (const [what, move] of Object.entries(MOVES)) {
  test(`${what}: no pause of a machine that runs or stands, and no proof of one that began before`, async (t) => {
    await using qemu = await FakeQemu.start();
    await using domain = await qemu.attach();
    const guard = await domain.pause.acquire();
    move(qemu);
    await t.throwsAsync(guard.prove(), { code: 'refused' });
    await guard.release();
    t.is(qemu.status, 'running');
    await t.throwsAsync(domain.pause.acquire(), { code: 'refused' });
    await domain.state();
    t.is(qemu.status, 'running', 'nobody is left paused');
    qemu.stop();
    await domain.state();
    await t.throwsAsync(domain.pause.acquire(), { code: 'refused' });
    t.is(qemu.status, 'paused');
  });
}

test('what is over or no copy of memory is no reason to refuse, but a save between two proofs shows', async (t) => {
  await using qemu = await FakeQemu.start();
  qemu.migration = { status: 'completed', 'total-time': 17, blocked: true, 'blocked-reasons': ['a'] };
  qemu.jobs = [
    { id: 'mirror', type: 'mirror', status: 'running', 'current-progress': 1 },
    { id: 's', type: 'snapshot-save', status: 'concluded' },
  ];
  await using domain = await qemu.attach();
  await using guard = await domain.pause.acquire();
  const before = await guard.prove();
  qemu.jobs = [{ id: 'mirror', type: 'mirror', status: 'running', 'current-progress': 2 }];
  qemu.migration = { status: 'completed', 'total-time': 17, blocked: false };
  t.deepEqual(await guard.prove(), before);
  qemu.migration = { status: 'completed', 'total-time': 18 };
  t.notDeepEqual(await guard.prove(), before);
});

test('stopped by somebody else just before our stop: theirs to end', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  const acquired = domain.pause.acquire();
  qemu.stop();
  const guard = await acquired;
  t.true(guard.foundPaused);
  await guard.prove();
  await guard.release();
  t.is(qemu.status, 'paused');
});

test('somebody looks while we find it paused by somebody else: theirs to end', async (t) => {
  for (const heard of [true, false]) {
    for (const during of ['query-status', 'stop', 'query-jobs', 'query-migrate']) {
      await using qemu = await FakeQemu.start();
      await using domain = await qemu.attach();
      qemu.onCommand = (command) => {
        if (command === during) domain.tick();
      };
      if (heard) {
        qemu.stop();
        await domain.state();
      }
      const acquired = domain.pause.acquire();
      qemu.stop();
      const guard = await acquired;
      t.true(guard.foundPaused);
      await guard.release();
      await domain.state();
      t.is(qemu.status, 'paused', `a look at ${during}`);
      t.false(qemu.commands.includes('cont'));
    }
  }
});

test('resumed and stopped by somebody else just before our stop: theirs to end', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  const acquired = domain.pause.acquire();
  qemu.cont();
  qemu.stop();
  const guard = await acquired;
  t.true(guard.foundPaused);
  await guard.prove();
  await guard.release();
  await domain.state();
  t.is(qemu.status, 'paused');
  t.false(qemu.commands.includes('cont'));
});

test('the connection breaks while the process is: not gone, and no proof', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  const guard = await domain.pause.acquire();
  qemu.hangUp();
  await t.throwsAsync(guard.prove(), { code: 'host-unreachable' });
});

test('an event that nobody has read yet is heard without waiting', async (t) => {
  await using qemu = await FakeQemu.start();
  await using domain = await qemu.attach();
  await using guard = await domain.pause.acquire();
  await guard.prove();
  t.true(guard.isQuiet());
  qemu.event('RESUME');
  t.false(guard.isQuiet());
  t.true(guard.valid, 'its handler was not called yet');
});
