import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { cachedKernel, cachedKernels, requireKernel } from '../../kernels/cache.ts';
import { fetchKernel } from '../../kernels/fetch.ts';
import { debianKernels } from '../../kernels/manifest.ts';
import { diskModules } from '../../kernels/modules.ts';
import { missingKernels } from '../real-kernels.ts';

/**
 * An archive of small packages behind programs that answer as apt-cache and apt-get do; dpkg and dpkg-deb are the
 * real ones.
 */
const archive = await mkdtemp(path.join(tmpdir(), 'domsched-archive-'));
const kernel = debianKernels().find(({ id }) => id === 'debian-6.1-cloud')!;
const originalPath = process.env.PATH;

async function program(name: string, script: string): Promise<void> {
  const file = path.join(archive, 'bin', name);
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, `#!/bin/bash\n${script}\n`);
  await chmod(file, 0o755);
}

/** Adds a package whose files hold their own names and `content`. */
async function addPackage(name: string, version: string, files: string[], content: string): Promise<void> {
  const tree = path.join(archive, 'tree');
  await rm(tree, { recursive: true, force: true });
  await mkdir(path.join(tree, 'DEBIAN'), { recursive: true });
  await writeFile(
    path.join(tree, 'DEBIAN/control'),
    `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nMaintainer: x <x@localhost>\nDescription: x\n`,
  );
  for (const file of files) {
    await mkdir(path.join(tree, path.dirname(file)), { recursive: true });
    await writeFile(path.join(tree, file), `${path.basename(file)} ${content}`);
  }
  const deb = path.join(archive, 'pool', `${name}_${version}_amd64.deb`);
  await mkdir(path.dirname(deb), { recursive: true });
  await execa('dpkg-deb', ['--root-owner-group', '--build', tree, deb]);
  const bytes = await readFile(deb);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await mkdir(path.join(archive, 'index'), { recursive: true });
  await writeFile(
    path.join(archive, 'index', name),
    `Package: ${name}\nVersion: ${version}\nSize: ${bytes.length}\nSHA256: ${sha256}\n`,
  );
}

async function addKernel(release: string, version: string, content = ''): Promise<void> {
  const modules = ['block/virtio_blk.ko', 'virtio/virtio-ring.ko', 'net/other.ko'];
  const image = [
    `./boot/vmlinuz-${release}`,
    `./boot/config-${release}`,
    ...modules.map((file) => `./lib/modules/${release}/kernel/drivers/${file}`),
  ];
  await addPackage(`linux-image-${release}`, version, image, content);
  const debug = `./usr/lib/debug/boot/vmlinux-${release}`;
  await addPackage(`linux-image-${release}-dbg`, version, [debug], content);
}

test.before(async () => {
  await mkdir(path.join(archive, 'index'), { recursive: true });
  await program(
    'apt-cache',
    `cd ${archive}/index
case "$1" in
  pkgnames) ls | grep "^$2" ;;
  --no-all-versions) shift 2; for name; do [ -e "$name" ] && cat "$name" && echo; done; true ;;
esac`,
  );
  await program(
    'apt-get',
    `[ -e ${archive}/offline ] && { echo 'E: no network' >&2; exit 100; }
name="\${3%%=*}"; version="\${3#*=}"; cp "${archive}/pool/\${name}_\${version}_amd64.deb" .`,
  );
  process.env.PATH = `${archive}/bin:${originalPath}`;
});

test.after.always(async () => {
  process.env.PATH = originalPath;
  await rm(archive, { recursive: true, force: true });
});

test.beforeEach(async () => {
  for (const part of ['index', 'pool', 'offline']) {
    await rm(path.join(archive, part), { recursive: true, force: true });
  }
  await mkdir(path.join(archive, 'index'));
});

async function withCache(action: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-cache-'));
  try {
    await action(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const signal = new AbortController().signal;

test.serial(
  'the newest point release with both its packages is taken, whole, and nothing else is kept',
  (t) =>
    withCache(async (directory) => {
      await addKernel('6.1.0-9-cloud-amd64', '6.1.99-1');
      await addKernel('6.1.0-10-cloud-amd64', '6.1.100-1', 'ten');
      await addKernel('6.1.0-11-amd64', '6.1.101-1');
      await addPackage('linux-image-6.1.0-12-cloud-amd64', '6.1.102-1', ['./boot/x'], '');
      await fetchKernel(kernel, { directory, signal });
      const release = '6.1.0-10-cloud-amd64';
      t.deepEqual(
        readdirSync(directory).filter((name) => name.startsWith('6')),
        [release],
      );
      const cached = requireKernel('debian-6.1-cloud', directory);
      t.is(cached.release, release);
      t.is(await readFile(cached.vmlinux, 'utf8'), `vmlinux-${release} ten`);
      t.is(await readFile(cached.vmlinuz, 'utf8'), `vmlinuz-${release} ten`);
      t.is(await readFile(cached.config, 'utf8'), `config-${release} ten`);
      t.is(cached.provenance.packages.debug.version, '6.1.100-1');
      const modules = await diskModules(cached);
      t.deepEqual(
        modules.map((file) => path.relative(cached.directory, file)),
        ['modules/virtio_ring.ko', 'modules/virtio_blk.ko'],
        'in the order in which they are to be loaded',
      );
      t.is(await readFile(modules[1]!, 'utf8'), 'virtio_blk.ko ten');
      t.deepEqual(readdirSync(path.join(directory, 'download')), []);
    }),
);

test.serial('what is there and current stays untouched; a rebuilt package is fetched again', (t) =>
  withCache(async (directory) => {
    const release = '6.1.0-9-cloud-amd64';
    await addKernel(release, '6.1.99-1', 'old');
    await fetchKernel(kernel, { directory, signal });
    const before = await stat(cachedKernel(release, directory)!.vmlinux);
    t.regex(await fetchKernel(kernel, { directory, signal }), /is there/);
    t.is((await stat(cachedKernel(release, directory)!.vmlinux)).ino, before.ino);
    await addKernel(release, '6.1.99-2', 'new');
    await fetchKernel(kernel, { directory, signal });
    t.is(await readFile(cachedKernel(release, directory)!.vmlinux, 'utf8'), `vmlinux-${release} new`);
  }),
);

test.serial('a newer point release comes beside the older one and is the one to use', (t) =>
  withCache(async (directory) => {
    await addKernel('6.1.0-9-cloud-amd64', '6.1.99-1');
    await fetchKernel(kernel, { directory, signal });
    await addKernel('6.1.0-10-cloud-amd64', '6.1.100-1');
    await fetchKernel(kernel, { directory, signal });
    t.deepEqual(
      cachedKernels(directory).map(({ release }) => release),
      ['6.1.0-9-cloud-amd64', '6.1.0-10-cloud-amd64'],
    );
    t.is(requireKernel('debian-6.1-cloud', directory).release, '6.1.0-10-cloud-amd64');
  }),
);

test.serial('interrupted at any step, nothing half-done is left, and the next run completes', (t) =>
  withCache(async (directory) => {
    await addKernel('6.1.0-9-cloud-amd64', '6.1.99-1');
    for (let step = 1; ; step++) {
      const controller = new AbortController();
      let steps = 0;
      const run = fetchKernel(kernel, {
        directory,
        signal: controller.signal,
        progress: () => {
          if (++steps === step) controller.abort(new Error('stopped'));
        },
      });
      const isComplete = await run.then(
        () => true,
        () => false,
      );
      if (isComplete) {
        t.true(step > 3, `only ${step - 1} steps to interrupt`);
        break;
      }
      t.deepEqual(cachedKernels(directory), []);
      t.false(existsSync(path.join(directory, 'incoming', '6.1.0-9-cloud-amd64')));
      t.true(step < 50);
    }
    t.is(cachedKernels(directory).length, 1);
  }),
);

test.serial(
  'a package without the kernel in it, no network, no package: one clear error, nothing changed',
  (t) =>
    withCache(async (directory) => {
      await t.throwsAsync(fetchKernel(kernel, { directory, signal }), { code: 'package-not-found' });
      const release = '6.1.0-9-cloud-amd64';
      await addKernel(release, '6.1.99-1');
      await writeFile(path.join(archive, 'offline'), '');
      await t.throwsAsync(fetchKernel(kernel, { directory, signal }), {
        code: 'download-failed',
        message: /no network/,
      });
      await rm(path.join(archive, 'offline'));
      await addPackage(`linux-image-${release}-dbg`, '6.1.99-1', ['./usr/share/doc/x'], '');
      await t.throwsAsync(fetchKernel(kernel, { directory, signal }), { code: 'package-broken' });
      t.deepEqual(cachedKernels(directory), []);
      t.throws(() => requireKernel('debian-6.1-cloud', directory), {
        code: 'kernel-absent',
        message: /make kernels-debian/,
      });
    }),
);

test('a kernel that is not there names the command that fetches it, whatever its kind', async (t) => {
  const empty = await mkdtemp(path.join(tmpdir(), 'no-kernels-'));
  t.teardown(() => rm(empty, { recursive: true }));
  for (const { id, default: isDefault } of debianKernels()) {
    const { message } = t.throws(() => requireKernel(id, empty), { code: 'kernel-absent' });
    t.true(message.endsWith(isDefault ? 'run `make kernels-debian`' : 'run `make kernels-all`'), message);
  }
  const missing = missingKernels(empty);
  t.is(missing.length, debianKernels().filter((kernel) => kernel.default).length);
  for (const line of missing) t.regex(line, /run `make kernels-debian`$/);
});
