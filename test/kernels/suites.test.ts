import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { matrix } from '../../kernels/matrix.ts';
import { withTable } from '../../kernels/no-file.ts';
import { type Archive, fetchKernels, spanning, suiteKernels } from '../../kernels/suites.ts';

const releases = (...names: string[]) => names.map((release) => ({ release }));

test('the tests take kernels that span the series, whichever there are', (t) => {
  const all = releases(
    '5.10.0-32-cloud-amd64',
    '6.12.117+deb13-cloud-amd64',
    '6.19.14+deb13-cloud-amd64',
    '7.0.13+deb13-cloud-amd64',
    '7.3.4+deb13-cloud-amd64',
    '7.3.4+deb13-rt-amd64',
  );
  t.deepEqual(
    spanning(all),
    releases('5.10.0-32-cloud-amd64', '6.19.14+deb13-cloud-amd64', '7.3.4+deb13-cloud-amd64'),
  );
  t.deepEqual(spanning(all.slice(1, 3)), releases('6.12.117+deb13-cloud-amd64', '6.19.14+deb13-cloud-amd64'));
  t.deepEqual(spanning([]), []);
});

test('the document has a row for each kernel, each reason and each anomaly', (t) => {
  const row = {
    title: '9.9.1-cloud-amd64 preempt=full',
    suite: 'sid',
    cells: { attach: 'ok', park: '3 ready', splice: 'refused' },
    refused: { splice: 'a member is missing' },
    holds: 17,
    anomalies: ['nice: 3 is not 7\nat a place'],
    seconds: 41.6,
  };
  const text = matrix([row], new Map([['9.9.1-cloud-amd64', { seconds: 2, structures: 77, symbols: 88 }]]));
  t.true(
    text.includes(
      '| 9.9.1-cloud-amd64 preempt=full | sid | 77 structures, 88 symbols, 2.0 s | ok | – | 3 ready | refused |',
    ),
    text,
  );
  t.true(text.includes('| 17 | 42 |'));
  t.true(text.includes('- 9.9.1-cloud-amd64 preempt=full, splice: a member is missing\n'));
  t.true(text.includes('- 9.9.1-cloud-amd64 preempt=full: nice: 3 is not 7\n'));
  t.true(matrix([], new Map()).includes('None.'));

  const other = { ...row, title: '9.9.2', cells: {}, refused: { nice: 'no' }, anomalies: [] };
  const both = matrix([other], new Map(), text);
  const all = matrix(
    [row, other],
    new Map([['9.9.1-cloud-amd64', { seconds: 2, structures: 77, symbols: 88 }]]),
  );
  t.is(both, all, 'a kernel that was not tried again keeps its row and what is said of it');
  const better = matrix([{ ...row, refused: {}, anomalies: [] }], new Map(), both);
  t.false(/9\.9\.1.*: /.test(better), 'of one that was, nothing is kept');
  t.true(better.includes('- 9.9.2, nice: no\n'));
});

test('the table of kernels without a file goes into its place, with what differs, and counts what agrees', (t) => {
  const row = {
    suite: 'sid',
    symbols: 123_456,
    slideMiB: 62,
    cells: { memory: 'ok', used: '3 of 3' },
    anomalies: [],
  };
  const rows = [
    { release: '9.1', ...row },
    { release: '9.9', ...row, cells: { memory: 'differs' }, anomalies: ['memory: 1 is not 2\nat a place'] },
  ];
  const place = 'before\n<!-- table of `make no-file` -->\nold\n<!-- end of the table -->\nafter';
  const text = withTable(place, rows);
  t.true(text.includes('| 9.1 | sid | 123,456 | 62 | ok | – | 3 of 3 | – |'), text);
  t.true(text.includes('1 of 2 kernels without a difference; 123,456 symbols in all.'));
  t.true(text.includes('- 9.9: memory: 1 is not 2\n'));
  t.false(text.includes('old'));
  t.regex(text, /^before\n/);
  t.regex(text, /\nafter$/);
  t.is(withTable(text, rows), text);
  t.is(withTable(withTable(place, rows.slice(0, 1)), rows.slice(1)), text, 'rows of other kernels stay');
  t.is(withTable(withTable(place, rows.slice(1)), rows.slice(0, 1)), text);
  t.throws(() => withTable('no place', rows), { message: /no place for the table/ });
});

/** A package of an archive of the test's own: a kernel's image, which is its own release. */
interface Fake {
  readonly suite: string;
  /** `linux-image`, or since 6.19 `linux-binary`. */
  readonly kind: string;
  readonly release: string;
  readonly version: string;
}

/** An archive that apt reads from a folder: suites, packages, and nothing that is signed. */
class FakeArchive {
  readonly folder: string;
  readonly cache: string;

  constructor(folder: string) {
    this.folder = path.join(folder, 'archive');
    this.cache = path.join(folder, 'cache');
  }

  static async make(t: ExecutionContext): Promise<FakeArchive> {
    const folder = await mkdtemp(path.join(tmpdir(), 'domsched-archive-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    return new FakeArchive(folder);
  }

  get archive(): Archive {
    return { uri: `copy:${this.folder}`, trust: 'trusted=yes' };
  }

  /** Offers these packages, and no others any more. */
  async offer(packages: readonly Fake[]): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
    for (const suite of new Set(packages.map((each) => each.suite))) {
      const index = path.join(this.folder, 'dists', suite, 'main', 'binary-amd64');
      await mkdir(index, { recursive: true });
      const stanzas: string[] = [];
      for (const each of packages.filter((candidate) => candidate.suite === suite))
        stanzas.push(await this.#pack(each));
      const text = stanzas.join('\n');
      await writeFile(path.join(index, 'Packages'), text);
      const sum = createHash('sha256').update(text).digest('hex');
      const release = `Suite: ${suite}\nComponents: main\nArchitectures: amd64\nSHA256:\n ${sum} ${text.length} main/binary-amd64/Packages\n`;
      await writeFile(path.join(this.folder, 'dists', suite, 'Release'), release);
    }
  }

  async #pack({ kind, release, version }: Fake): Promise<string> {
    const name = `${kind}-${release}`;
    const tree = path.join(this.folder, 'tree', `${name}_${version}`);
    await mkdir(path.join(tree, 'DEBIAN'), { recursive: true });
    await mkdir(path.join(tree, 'boot'), { recursive: true });
    const control = `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: a kernel\n`;
    await writeFile(path.join(tree, 'DEBIAN', 'control'), control);
    const image = `boot/vmlinuz-${release}`;
    await writeFile(path.join(tree, image), `${release} ${version}`);
    const sum = createHash('md5').update(`${release} ${version}`).digest('hex');
    await writeFile(path.join(tree, 'DEBIAN', 'md5sums'), `${sum}  ${image}\n`);
    const file = path.join(this.folder, 'pool', `${name}_${version}_amd64.deb`);
    await mkdir(path.dirname(file), { recursive: true });
    await execa('dpkg-deb', ['--build', '--root-owner-group', '-Zgzip', tree, file]);
    const bytes = await readFile(file);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const { size } = await stat(file);
    return `${control}Filename: pool/${path.basename(file)}\nSize: ${size}\nSHA256: ${sha256}\n`;
  }
}

const cloud = (suite: string, version: string, kind = 'linux-image'): Fake => ({
  suite,
  kind,
  release: `${version}-cloud-amd64`,
  version: `${version}-1`,
});

test('an archive is asked which kernels there are: the newest of each series, with its flavours, from whichever suite', async (t) => {
  const fake = await FakeArchive.make(t);
  await fake.offer([
    cloud('old', '5.10.9'),
    cloud('old', '6.18.2'),
    cloud('new', '6.18.10'),
    cloud('new', '7.9.1', 'linux-binary'),
    { ...cloud('new', '7.9.1'), release: '7.9.1-amd64', kind: 'linux-binary' },
    { ...cloud('new', '7.9.1'), release: '7.9.1-rt-amd64', kind: 'linux-binary' },
    // Debug information, and what is for other machines.
    { ...cloud('new', '7.9.2'), release: '7.9.2-cloud-amd64-dbg' },
    { ...cloud('new', '7.9.2'), release: '7.9.2-cloud-arm64' },
  ]);
  const { archive } = fake;
  const options = { only: ['old', 'new'], maxAgeMs: 0, archive, all: true };
  const lines = await fetchKernels(fake.cache, options);
  const found = suiteKernels(fake.cache);
  t.deepEqual(
    found.map(({ release, suite }) => `${release} of ${suite}`),
    [
      '5.10.9-cloud-amd64 of old',
      '6.18.10-cloud-amd64 of new',
      '7.9.1-amd64 of new',
      '7.9.1-cloud-amd64 of new',
      '7.9.1-rt-amd64 of new',
    ],
    'ten comes after two',
  );
  t.is(lines.filter((line) => line.includes(' fetched (')).length, 5, lines.join('\n'));
  for (const { release, vmlinuz } of found) {
    const version = /^[\d.]+/.exec(release)![0];
    t.is(await readFile(vmlinuz, 'utf8'), `${release} ${version}-1`);
  }
  t.deepEqual(await readdir(path.join(fake.cache, 'download')), [], 'no package stays');

  const again = await fetchKernels(fake.cache, options);
  t.true(
    again.every((line) => line.includes(' is there (')),
    again.join('\n'),
  );

  // Debian takes old point releases away; what was fetched stays.
  await fake.offer([cloud('old', '5.10.9'), cloud('new', '6.18.11')]);
  const later = await fetchKernels(fake.cache, options);
  t.true(
    later.some((line) => line.startsWith('6.18.11-cloud-amd64 fetched (new')),
    later.join('\n'),
  );
  t.true(suiteKernels(fake.cache).some(({ release }) => release === '6.18.10-cloud-amd64'));
});

test('a kernel that was built anew under its old name is fetched again, and a package that lies is not taken', async (t) => {
  const fake = await FakeArchive.make(t);
  const { archive } = fake;
  const options = { only: ['new'], maxAgeMs: 0, archive, all: false };
  await fake.offer([cloud('new', '7.9.1')]);
  await fetchKernels(fake.cache, options);
  await fake.offer([{ ...cloud('new', '7.9.1'), version: '7.9.1-2' }]);
  t.deepEqual(await fetchKernels(fake.cache, options), ['7.9.1-cloud-amd64 fetched (new, 7.9.1-2)']);
  const [kernel] = suiteKernels(fake.cache);
  t.is(await readFile(kernel!.vmlinuz, 'utf8'), '7.9.1-cloud-amd64 7.9.1-2');

  await fake.offer([{ ...cloud('new', '7.9.1'), version: '7.9.1-3' }]);
  const file = path.join(fake.folder, 'pool', 'linux-image-7.9.1-cloud-amd64_7.9.1-3_amd64.deb');
  const bytes = await readFile(file);
  await writeFile(file, bytes.fill(0, bytes.length - 20));
  await t.throwsAsync(fetchKernels(fake.cache, options), { code: 'download-failed' });
  t.is(await readFile(kernel!.vmlinuz, 'utf8'), '7.9.1-cloud-amd64 7.9.1-2', 'the one before stays');
});

test('an archive without a kernel says so', async (t) => {
  const fake = await FakeArchive.make(t);
  await fake.offer([{ ...cloud('new', '7.9.1'), kind: 'something-else' }]);
  const { archive } = fake;
  const fetch = fetchKernels(fake.cache, { only: ['new'], maxAgeMs: 0, archive, all: false });
  await t.throwsAsync(fetch, { code: 'package-not-found', message: /no suite of new has a kernel/ });
});
