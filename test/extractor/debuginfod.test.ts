/** Debug files by build-id, from Debian's own debuginfod on this machine, which serves the folder of our O(1) kernel. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { execa } from 'execa';
import type { KernelLayout } from '../../extractor/contract.ts';
import { identify } from '../../runtime/guest/identify/identify.ts';
import { kernelOf, knownKernels } from '../../runtime/layout/registry.ts';
import { kernelFile } from '../live/o1.ts';
import { domsched } from '../live/ps-layouts.ts';
import { freePort } from '../runtime/free-port.ts';
import { O1_KERNEL, SyntheticGuest } from '../runtime/guest/synthetic.ts';

const folder = await mkdtemp(path.join(tmpdir(), 'domsched-debuginfod-'));
const file = kernelFile('base');
const env = { DEBUGINFOD_URLS: '', DEBUGINFOD_CACHE_PATH: path.join(folder, 'cache') };
let end: (() => Promise<unknown>) | undefined;

test.before('debuginfod serves the folder', async (t) => {
  t.timeout(120_000);
  process.env.DOMSCHED_CACHE_DIR = folder;
  const port = await freePort();
  const serving = execa('debuginfod', ['-d', ':memory:', '-p', String(port), '-F', path.dirname(file)], {
    reject: false,
    env: { HOME: folder },
  });
  end = () => {
    serving.kill();
    return serving;
  };
  env.DEBUGINFOD_URLS = `http://127.0.0.1:${port}`;
  // It answers before it has looked through the folder.
  const { buildId } = (await layoutOf(file)).kernel;
  for (const limit = Date.now() + 60_000; ; await sleep(100)) {
    const answer = await fetch(`${env.DEBUGINFOD_URLS}/buildid/${buildId}/debuginfo`).catch(() => null);
    await answer?.body?.cancel();
    if (answer?.ok) break;
    if (Date.now() > limit) throw new Error('debuginfod does not serve the kernel');
  }
});

test.after.always(async () => {
  await end?.();
  await rm(folder, { recursive: true, force: true });
});

test.serial(
  'a guest that says nothing of itself: the command that the message names makes its layout',
  async (t) => {
    t.timeout(120_000);
    const layout = await layoutOf(file);
    const guest = await SyntheticGuest.make({ kernel: O1_KERNEL, layout: await kernelOf(layout).load() });
    process.env.DEBUGINFOD_URLS = env.DEBUGINFOD_URLS;
    t.teardown(() => delete process.env.DEBUGINFOD_URLS);
    const error = await t.throwsAsync<Error & { code: string }>(identify(guest.domain, []));
    t.is(error!.code, 'layout-unknown');
    t.regex(error!.message, /has no symbols that name its data \(kallsyms/);
    const command = /or with domsched extract (--build-id [0-9a-f]+), by DEBUGINFOD_URLS/.exec(
      error!.message,
    );
    t.truthy(command, error!.message);
    const store = path.join(folder, 'layouts');
    await domsched(['extract', ...command![1]!.split(' '), '--out', store, '--quiet'], { env });
    const known = await knownKernels([path.join(store, 'registry.ts')]);
    t.is((await identify(guest.domain, known)).buildId, layout.kernel.buildId);
    // As from the file itself.
    const { source: _, ...expected } = layout;
    const { source, ...served } = await layoutOf('--build-id', layout.kernel.buildId!);
    t.deepEqual(served, expected);
    t.is(source.engine, 'dwarf');
  },
);

test.serial('what cannot be fetched is said, and what to do', async (t) => {
  const cases: [string, Record<string, string>, RegExp][] = [
    ['00'.repeat(20), env, /no server of DEBUGINFOD_URLS gave its debug file \(.*\); give the file itself/],
    ['00'.repeat(20), { ...env, DEBUGINFOD_URLS: ' ' }, /DEBUGINFOD_URLS names no server/],
    ['00'.repeat(20), { ...env, PATH: folder }, /not installed: apt-get install debuginfod/],
    ['../../etc/passwd', env, /is no build-id/],
  ];
  for (const [id, environment, expected] of cases) {
    const found = await domsched(['extract', '--build-id', id, '--json', '-'], {
      env: environment,
      reject: false,
    });
    t.is(found.exitCode, 1);
    t.regex(String(found.stderr), expected);
    t.regex(String(found.stderr), /\[file-not-found\]/);
    t.is(found.stdout, '');
  }
  const both = await domsched(['extract', file, '--build-id', 'ab', '--json', '-'], { env, reject: false });
  t.is(both.exitCode, 2);
});

async function layoutOf(...source: string[]): Promise<KernelLayout> {
  const { stdout } = await domsched(['extract', ...source, '--json', '-'], { env });
  return JSON.parse(String(stdout)) as KernelLayout;
}
