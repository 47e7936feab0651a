import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { execa } from 'execa';
import { makeOnce, replaceWhole } from '../../kernels/make-once.ts';
import { workloadBinary } from '../live/initramfs.ts';

/** A folder of a test's own. */
async function scratch(t: { teardown: (action: () => Promise<void>) => void }): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'make-once-'));
  t.teardown(() => rm(folder, { recursive: true }));
  return folder;
}

test('many at once in one process share one making', async (t) => {
  const folder = await scratch(t);
  const place = path.join(folder, 'deep', 'file');
  let made = 0;
  const one = () =>
    makeOnce(place, async (fresh) => {
      made++;
      await writeFile(fresh, 'half ');
      await sleep(20);
      await writeFile(fresh, 'whole', { flag: 'a' });
    });
  t.deepEqual(new Set(await Promise.all(Array.from({ length: 20 }, one))), new Set([place]));
  await one();
  t.is(made, 1);
  t.is(await readFile(place, 'utf8'), 'half whole');
  t.deepEqual(await readdir(path.dirname(place)), ['file'], 'nothing is left beside it');
});

test('the loads of guests that are booted at once are compiled', async (t) => {
  const folder = await scratch(t);
  const found = await Promise.all([1, 2, 3].map(() => workloadBinary(folder)));
  t.is(new Set(found).size, 1);
  t.deepEqual(await readdir(folder), [path.basename(found[0]!)]);
  t.regex((await execa('readelf', ['--file-header', found[0]!])).stdout, /Type:\s+EXEC/);
});

const FILE = `await writeFile(fresh, 'x'); await sleep(20); await writeFile(fresh, 'y'.repeat(100_000));`;
const FOLDER = `await mkdir(fresh); for (let i = 0; i < 20; i++) await writeFile(fresh + '/' + i, 'y');`;

for (const [kind, make] of Object.entries({ file: FILE, folder: FOLDER })) {
  test(`many processes at once: each finds a whole ${kind}`, async (t) => {
    const folder = await scratch(t);
    const module = new URL('../../kernels/make-once.ts', import.meta.url).href;
    const script = `
      import { mkdir, writeFile } from 'node:fs/promises';
      import { readFileSync, readdirSync, statSync } from 'node:fs';
      import { setTimeout as sleep } from 'node:timers/promises';
      import { makeOnce } from ${JSON.stringify(module)};
      const size = (place) => statSync(place).isDirectory() ? readdirSync(place).length : readFileSync(place).length;
      const found = new Set();
      for (let round = 0; round < 5; round++) {
        const one = () => makeOnce(${JSON.stringify(folder)} + '/' + round, async (fresh) => { ${make} });
        for (const place of await Promise.all([one(), one()])) found.add(size(place));
      }
      console.log([...found].join());`;
    const seen = await Promise.all(
      Array.from({ length: 4 }, () => execa(process.execPath, ['--input-type=module', '-e', script])),
    );
    for (const { stdout } of seen) t.is(stdout, kind === 'file' ? '100000' : '20');
    t.deepEqual((await readdir(folder)).sort(), ['0', '1', '2', '3', '4']);
  });
}

test('a making that fails leaves nothing, and the next call tries again', async (t) => {
  const folder = await scratch(t);
  const place = path.join(folder, 'file');
  const failing = makeOnce(place, async (fresh) => {
    await writeFile(fresh, 'half');
    throw new Error('no compiler');
  });
  await t.throwsAsync(failing, { message: 'no compiler' });
  t.deepEqual(await readdir(folder), []);
  await makeOnce(place, (fresh) => writeFile(fresh, 'whole'));
  t.is(await readFile(place, 'utf8'), 'whole');
});

test('what is made anew takes the place of a file whole', async (t) => {
  const folder = await scratch(t);
  const place = path.join(folder, 'file');
  await Promise.all(['a', 'b', 'c'].map((text) => replaceWhole(place, (fresh) => writeFile(fresh, text))));
  t.regex(await readFile(place, 'utf8'), /^[abc]$/);
  t.deepEqual(await readdir(folder), ['file']);
});

test('a place that cannot be made is an error, not a making that counts as done', async (t) => {
  const folder = await scratch(t);
  await mkdir(path.join(folder, 'taken'));
  await t.throwsAsync(
    replaceWhole(path.join(folder, 'taken'), (fresh) => writeFile(fresh, 'a file')),
    { code: 'EISDIR' },
  );
});
