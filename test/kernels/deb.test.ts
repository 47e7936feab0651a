import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { parseStanzas } from '../../kernels/apt.ts';
import { extractFile } from '../../kernels/deb.ts';
import { debianKernels, forRelease, isReleaseOf } from '../../kernels/manifest.ts';

const payload = randomBytes(300_000);
const member = './usr/lib/debug/boot/vmlinux-9.9-test';

/** A package with one big file, another behind it, and checksums of the first that may be wrong. */
async function buildDeb(
  folder: string,
  md5 = createHash('md5').update(payload).digest('hex'),
): Promise<string> {
  const tree = path.join(folder, 'tree');
  await mkdir(path.join(tree, 'DEBIAN'), { recursive: true });
  await mkdir(path.join(tree, path.dirname(member)), { recursive: true });
  await mkdir(path.join(tree, 'usr/lib/modules'), { recursive: true });
  await writeFile(
    path.join(tree, 'DEBIAN/control'),
    'Package: test-kernel\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n',
  );
  await writeFile(path.join(tree, 'DEBIAN/md5sums'), `${md5}  ${member.slice(2)}\n`);
  await writeFile(path.join(tree, member), payload);
  await writeFile(path.join(tree, 'usr/lib/modules/later.ko'), randomBytes(2_000_000));
  const deb = path.join(folder, 'test.deb');
  await execa('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, deb]);
  return deb;
}

async function withFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), 'domsched-deb-'));
  try {
    await action(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test('one file comes out of a package, with its size and checksum', (t) =>
  withFolder(async (folder) => {
    const target = path.join(folder, 'out');
    const seen: number[] = [];
    const found = await extractFile(await buildDeb(folder), member, target, {
      progress: (bytes) => seen.push(bytes),
    });
    t.deepEqual(await readFile(target), payload);
    t.deepEqual(found, { size: payload.length, sha256: createHash('sha256').update(payload).digest('hex') });
    t.is(seen.at(-1), payload.length);
  }));

test('a file that is not in the package is refused and leaves nothing', (t) =>
  withFolder(async (folder) => {
    const target = path.join(folder, 'out');
    const error = await t.throwsAsync(extractFile(await buildDeb(folder), './boot/vmlinuz', target), {
      code: 'package-broken',
    });
    t.regex(error!.message, /boot\/vmlinuz/);
    t.false(existsSync(target));
  }));

test("a file that does not match the package's own checksum is refused and leaves nothing", (t) =>
  withFolder(async (folder) => {
    const target = path.join(folder, 'out');
    const deb = await buildDeb(folder, '0'.repeat(32));
    await t.throwsAsync(extractFile(deb, member, target), { code: 'package-broken', message: /checksum/ });
    t.false(existsSync(target));
  }));

test('a package cut short is refused and leaves nothing', (t) =>
  withFolder(async (folder) => {
    const target = path.join(folder, 'out');
    const deb = await buildDeb(folder);
    await truncate(deb, 200_000);
    await t.throwsAsync(extractFile(deb, member, target), { code: 'package-broken' });
    t.false(existsSync(target));
  }));

test('an interruption leaves nothing', (t) =>
  withFolder(async (folder) => {
    const target = path.join(folder, 'out');
    const controller = new AbortController();
    await t.throwsAsync(
      extractFile(await buildDeb(folder), member, target, {
        signal: controller.signal,
        progress: () => controller.abort(new Error('stopped by the user')),
      }),
      { message: 'stopped by the user' },
    );
    t.false(existsSync(target));
  }));

test("apt's stanzas: packages that can be downloaded, by name", (t) => {
  const text = [
    'Package: a',
    'Version: 1:2-3',
    'Pre-Depends: b (>= 1)',
    'Depends: c:any, d | e, f (<< 2)',
    'Description: x',
    ' continued, Size: 7',
    'Size: 100',
    `SHA256: ${'ab'.repeat(32)}`,
    '',
    'Package: installed-only',
    'Version: 1',
    'Status: install ok installed',
    '',
  ].join('\n');
  t.deepEqual(
    [...parseStanzas(text)],
    [
      [
        'a',
        { name: 'a', version: '1:2-3', size: 100, sha256: 'ab'.repeat(32), depends: ['b', 'c', 'd', 'f'] },
      ],
    ],
  );
});

test('the manifest tells the flavours and series of releases apart', (t) => {
  const belongs = (release: string) =>
    debianKernels()
      .filter((kernel) => isReleaseOf(kernel, release))
      .map(({ id }) => id);
  t.deepEqual(belongs('6.1.0-56-amd64'), ['debian-6.1-amd64']);
  t.deepEqual(belongs('6.1.0-56-cloud-amd64'), ['debian-6.1-cloud']);
  t.deepEqual(belongs('6.1.0-56-rt-amd64'), ['debian-6.1-rt']);
  t.deepEqual(belongs('6.12.117+deb12-amd64'), ['debian-6.12-amd64']);
  t.deepEqual(belongs('6.12.117+deb13-cloud-amd64'), ['debian-6.12-cloud']);
  t.deepEqual(belongs('6.12.117+deb12-rt-amd64'), ['debian-6.12-rt']);
  t.deepEqual(belongs('6.12.117+deb12-rt-amd64-unsigned'), []);
  t.deepEqual(belongs('6.1.0-56-amd64-dbg'), []);
  t.deepEqual(belongs('6.13.1-amd64'), []);
  t.is(debianKernels().length, 6);
  t.is(forRelease('linux-image-{release}-dbg', '6.1.0-9-amd64'), 'linux-image-6.1.0-9-amd64-dbg');
});
