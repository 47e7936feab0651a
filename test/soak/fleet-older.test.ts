/**
 * A daemon of an older version in one fleet with one of this version: a real build of an earlier commit, over a live guest,
 * and the real server. It is from before `protect` had `share`, hosts told their policy's revision, and `blame --fleet`. In
 * `make soak` only: it builds that commit.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { DaemonProcess } from '../live/daemon-process.ts';
import { bootFleetHost, type LiveHost } from '../live/fleet-host.ts';
import { until } from '../live/until.ts';
import { NatsServer } from '../runtime/fleet/nats-server.ts';
import { buildBefore } from './older-build.ts';

const onHost = (host: string) => `[[policy]]
type = "idle-only"
name = "backups"
select = [{ host = "${host}", comm = "pi*" }]
ignore = [{ host = "${host}" }]
`;
const SHARE = `[[policy]]
type = "protect"
select = [{ comm = "pi*" }]
protect = [{ comm = "nobody" }]
share = 0.8
`;

test('an older daemon and this one hold for each other, go by one policy, and none is set that the older one cannot use', async (t) => {
  t.timeout(3_600_000);
  const older = await buildBefore("'p99'", 'runtime/daemon/config-schema.ts');
  if (older === undefined) {
    console.log('# not run: this checkout has no history from which to build an older daemon');
    t.pass('nothing to build');
    return;
  }
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-older-'));
  process.env.DOMSCHED_CACHE_DIR = directory;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const server = stack.use(await NatsServer.start());
  const boots = [
    bootFleetHost('a', directory, server.url),
    bootFleetHost('b', directory, server.url, [], older),
  ];
  for (const one of await Promise.allSettled(boots)) if (one.status === 'fulfilled') stack.use(one.value);
  const [a, b] = (await Promise.all(boots)) as [LiveHost, LiveHost];
  const file = path.join(directory, 'policy.toml');
  const command = (...args: string[]) => a.daemon.domsched(...args, '-c', a.daemon.configFile);
  /** Sets it from this version. A host that a busy machine gives no time answers later. */
  const set = async (policy: string, revision: number) => {
    await writeFile(file, policy);
    await command('fleet', 'policy', 'set', file);
    for (const host of [a, b])
      await until(`revision ${revision} is in force`, async () => {
        const { policy: found } = await host.status();
        return found.revision === revision && found.isCurrent;
      });
  };
  const holds = (host: LiveHost, count: number, what: string) =>
    until(what, async () => (await host.held()) === count);

  await set(onHost('a'), 1);
  await holds(a, 1, 'the new one holds for the older');
  t.is(await b.held(), 0);
  await b.guest.qmp('stop');
  await holds(a, 0, 'it goes on when the older one rests');
  await b.guest.qmp('cont');
  await holds(a, 1, 'it is held again');
  const [known] = (await a.status()).hosts;
  t.like(known, { host: 'b', state: 'active' });
  t.deepEqual((await a.status()).refused, []);

  await set(onHost('b'), 2);
  await holds(b, 1, 'the older one holds for the new');
  await holds(a, 0, 'and the new one no longer');
  await a.guest.qmp('stop');
  await holds(b, 0, 'it goes on when the new one rests');
  await a.guest.qmp('cont');
  await holds(b, 1, 'it is held again');
  t.deepEqual((await b.status()).refused, []);

  // What it cannot use is not set, and it is named.
  await writeFile(file, SHARE);
  await until('it answers, and is in the way', async () => {
    const { exitCode, stderr } = await command('fleet', 'policy', 'check', file).catch(
      (error: { exitCode: number; stderr: string }) => error,
    );
    return exitCode === 1 && /cannot be used by every host:\n {2}b \(\d[^)]*\): .*share/s.test(stderr);
  });
  t.is((await a.status()).policy.revision, 2);
  const blamed = JSON.parse((await command('blame', '--fleet', '--for', '2', '--json')).stdout) as {
    readonly silent: readonly string[];
  };
  t.deepEqual(blamed.silent, ['b'], 'it is there, and tells nothing of that');

  // It is replaced by this version, with its own files.
  t.is(await b.daemon.end('SIGTERM'), 0, 'nobody is left held');
  const upgraded = stack.use(new DaemonProcess(b.daemon.directory, b.daemon.connections));
  upgraded.start();
  await until('it holds as before', async () => {
    await using asked = await upgraded.control();
    return (await asked.status()).domains.some(({ held }) => held === 1);
  });
  t.is(await upgraded.end('SIGTERM'), 0);
  t.is(await a.daemon.end('SIGTERM'), 0);
});
