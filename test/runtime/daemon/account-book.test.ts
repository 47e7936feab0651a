import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { AccountBook } from '../../../runtime/daemon/account-book.ts';
import type { PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { fairShare } from '../../../runtime/policy/fair-share.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import { Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import { FakeDaemon, fakeGuest, run } from './fake-daemon.ts';

const ACCOUNTS = {
  boots: { '/run/web.sock': '0-1-2' },
  policies: [
    {
      name: 'shares',
      configuration: 'x',
      groups: [{ domain: '/run/web.sock', name: '10 ff 5', hadMs: 12.5, held: true }],
    },
  ],
  guarantees: [{ domain: '/run/web.sock', owedMs: -3, slice: false, members: ['10 ff 5'] }],
};

async function setUp(t: ExecutionContext) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-book-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const warnings: string[] = [];
  const log = pino({ level: 'warn' }, { write: (line) => void warnings.push(line) });
  const clock = { ms: 0 };
  const journals = new Journals(directory);
  const open = () => new AccountBook(journals, log, () => clock.ms);
  const file = path.join(directory, 'accounts', 'policies.json');
  return { directory, warnings, open, file, clock, journals };
}

test('what one daemon writes the next one reads; it is written from time to time, whole', async (t) => {
  const { open, file, directory, clock } = await setUp(t);
  t.is(await open().load(), undefined);
  const book = open();
  t.true(book.isDue);
  await book.save(ACCOUNTS);
  t.false(book.isDue);
  clock.ms += 2_000;
  t.true(book.isDue);
  t.like(await open().load(), ACCOUNTS);
  const first = await readFile(file, 'utf8');
  await book.save(ACCOUNTS);
  t.is(await readFile(file, 'utf8'), first, 'nothing is new');
  clock.ms += 60_000;
  await book.save(ACCOUNTS);
  t.not(await readFile(file, 'utf8'), first);
  t.deepEqual(await readdir(path.dirname(file)), ['policies.json']);
  t.deepEqual(await readdir(directory), ['accounts']);
});

test('what is old, of another boot of the host, damaged or not ours is left aside', async (t) => {
  const { open, file, warnings, directory } = await setUp(t);
  await open().save(ACCOUNTS);
  const good = JSON.parse(await readFile(file, 'utf8'));
  const loads = async (content: unknown) => {
    await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
    return (await open().load()) !== undefined;
  };
  t.true(await loads(good));
  t.false(await loads({ ...good, hostBoot: 'another' }));
  t.false(await loads({ ...good, savedAt: new Date(Date.now() - 11 * 60_000).toISOString() }));
  t.false(
    await loads({ ...good, savedAt: new Date(Date.now() + 60_000).toISOString() }),
    'the clock was set back',
  );
  t.deepEqual(warnings, []);
  for (const bad of [
    '{',
    { ...good, version: 2 },
    { ...good, more: 1 },
    { ...good, guarantees: [{ owedMs: 'x' }] },
  ])
    t.false(await loads(bad));
  t.is(warnings.length, 4);
  const elsewhere = path.join(directory, 'elsewhere');
  await mkdir(elsewhere);
  await writeFile(path.join(elsewhere, 'policies.json'), JSON.stringify(good));
  await rm(path.dirname(file), { recursive: true });
  await symlink(elsewhere, path.dirname(file));
  t.is(await open().load(), undefined, 'a link leads where somebody else wants');
});

test('no room for accounts is told once and harms nothing; too many are not written', async (t) => {
  const { open, file, warnings, directory, clock, journals } = await setUp(t);
  // Nobody can make a folder where a file is, root neither.
  await writeFile(path.join(directory, 'accounts'), '');
  const book = open();
  await book.save(ACCOUNTS);
  t.is(journals.health.failure?.code, 'journal-failed', 'the daemon tells of it');
  await rm(path.join(directory, 'accounts'));
  await book.save(ACCOUNTS);
  t.is(journals.health.failure, undefined);
  t.like(await open().load(), ACCOUNTS);
  clock.ms += 2_000;
  const groups = Array.from({ length: 50_000 }, (_, i) => ({
    ...ACCOUNTS.policies[0]!.groups[0]!,
    name: `${i} f 5`.padEnd(60),
  }));
  await book.save({ ...ACCOUNTS, policies: [{ ...ACCOUNTS.policies[0]!, groups }] });
  t.is(warnings.length, 1);
  t.like(JSON.parse(await readFile(file, 'utf8')), ACCOUNTS);
});

test('a daemon that comes after one that was killed goes on with its accounts, by its own keys', async (t) => {
  const shares: PlacedPolicy = {
    name: 'shares',
    policy: fairShare({ cpus: 1, leadMs: 1_000 }),
    select: selector([{ comm: 'burn*' }]),
    windows: [],
    limit: undefined,
    account: 'x',
  };
  const one = await fakeGuest('one', { comm: 'burn1', state: 'ready' });
  const two = await fakeGuest('two', { comm: 'burn2', state: 'ready' });
  const work = async (fake: FakeDaemon, ms: number) => {
    run(one, 10, ms);
    run(two, 10, 100);
    await fake.tick();
  };
  await using first = await FakeDaemon.of([one, two], { entries: [shares] });
  await first.start();
  for (let i = 0; i < 9; i++) await work(first, 200);
  t.deepEqual(await first.held(), [], 'it is 900 ms ahead and may be 1,000');
  await first.daemon.settled();
  await using fresh = await FakeDaemon.of([one, two], { entries: [shares] });
  await fresh.start();
  for (let i = 0; i < 6; i++) await work(fresh, 200);
  t.deepEqual(await fresh.held(), [], 'one that knows nothing from before');
  await using second = await FakeDaemon.of([one, two], { entries: [shares], directory: first.directory });
  await second.start();
  for (let i = 0; i < 6; i++) await work(second, 200);
  t.deepEqual(await second.held(), ['burn1']);
});
