import { readdirSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { Records } from '../../../runtime/surgeon/records.ts';

/** Above every process number that Linux gives. */
const NO_PROCESS = 4_194_305;

test('one record written down by many at once is there, whole, and nothing is left beside it', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'records-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const records = new Records<{ name: string }>(
    directory,
    ({ name }) => name,
    async (json) => json as { name: string },
  );
  await Promise.all(Array.from({ length: 20 }, () => records.add({ name: 'same' })));
  t.deepEqual(await records.list(), [{ name: 'same' }]);
  t.deepEqual(await readdir(directory), ['same.json']);
});

test('a record is on disk without a turn of the event loop, as a domain stands still meanwhile', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'records-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const records = new Records(
    directory,
    () => 'x',
    async (json) => json,
  );
  const added = records.add({});
  t.deepEqual(readdirSync(directory), ['x.json']);
  await added;
});

test('what somebody was writing who was killed is taken away, what somebody still writes is not', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'records-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const records = new Records(
    directory,
    () => 'x',
    async (json) => json,
  );
  for (const name of [
    `a.json.${NO_PROCESS}.0a1b2c3d.new`,
    `b.json.${NO_PROCESS}.new`,
    'c.json.1.0a1b2c3d.new',
  ])
    await writeFile(path.join(directory, name), '{');
  t.deepEqual(await records.list(), []);
  t.deepEqual(await readdir(directory), ['c.json.1.0a1b2c3d.new']);
});
