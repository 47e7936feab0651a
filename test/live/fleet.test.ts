/** Two hosts on one machine: each with a daemon of its own over a guest of its own, the real server, and one policy. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import type { FleetBlame } from '../../runtime/command/blame-fleet-entry.ts';
import { NatsServer } from '../runtime/fleet/nats-server.ts';
import { bootFleetHost, type LiveHost } from './fleet-host.ts';
import { until } from './until.ts';

/** Of any CPU hog on host `a`, for as long as one of another host works. */
const POLICY = `[[policy]]
type = "idle-only"
name = "backups"
select = [{ host = "a", comm = "pi*" }]
ignore = [{ host = "a" }]
`;

test('a backup is held while the database of another host works, and goes on after, and when nobody can be heard', async (t) => {
  t.timeout(600_000);
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-live-'));
  process.env.DOMSCHED_CACHE_DIR = directory;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const server = stack.use(await NatsServer.start());
  const file = path.join(directory, 'policy.toml');
  await writeFile(file, POLICY);
  const boots = ['a', 'b'].map((name) => bootFleetHost(name, directory, server.url));
  for (const one of await Promise.allSettled(boots)) if (one.status === 'fulfilled') stack.use(one.value);
  const [a, b] = (await Promise.all(boots)) as [LiveHost, LiveHost];

  const set = await a.daemon.domsched('fleet', 'policy', 'set', file, '-c', a.daemon.configFile);
  t.regex(
    set.stdout,
    /^revision 1 is the policy of the fleet, (2 hosts|1 host) answered|but no host answered/,
  );
  await until('the backup is held', async () => (await a.held()) === 1);
  await until('it is told why', async () => {
    const { stdout } = await a.daemon.domsched('fleet', 'status', '-c', a.daemon.configFile);
    t.regex(stdout, /^a: connected to .*\npolicy: revision 1, set by .*; the latest\n/);
    return /b .*active.*guest-b: pi1/.test(stdout);
  });
  const listed = await b.daemon.domsched('ps', '--fleet', '--json', '-c', b.daemon.configFile);
  const hogs = (JSON.parse(listed.stdout) as { domain: string; comm: string }[]).filter(
    ({ comm }) => comm === 'pi1',
  );
  t.deepEqual(
    hogs.map(({ domain }) => domain),
    ['a/guest-a', 'b/guest-b'],
  );
  t.is(await b.held(), 0, 'it is no backup of host b');
  const blamed = await b.daemon.domsched(
    'blame',
    '--fleet',
    '--for',
    '2',
    '--json',
    '-c',
    b.daemon.configFile,
  );
  const { hosts, silent } = JSON.parse(blamed.stdout) as Pick<FleetBlame, 'silent'> & {
    hosts: {
      host: string;
      samples: number;
      ranNs: number;
      culprits: { share: number }[];
      rest: { share: number };
    }[];
  };
  t.deepEqual(silent, []);
  t.deepEqual(hosts.map(({ host }) => host).sort(), ['a', 'b']);
  for (const { host, samples, culprits, rest } of hosts) {
    t.true(samples >= 2, host);
    const shares = culprits.reduce((sum, { share }) => sum + share, rest.share);
    t.true(culprits.length === 0 || Math.abs(shares - 1) < 1e-6, host);
  }
  t.true(hosts.find(({ host }) => host === 'b')!.ranNs > 0, 'its hog ran');

  // The database rests: nothing of its guest runs.
  await b.guest.qmp('stop');
  // A host that gets no CPU for two leases counts as silent meanwhile.
  await until('it is known to rest', async () => (await a.status()).hosts[0]!.state === 'at rest');
  await until('it goes on', async () => (await a.held()) === 0);
  await b.guest.qmp('cont');
  await until('it is held again', async () => (await a.held()) === 1);

  await server.kill();
  await until('it goes on though the database works', async () => (await a.held()) === 0);
  await until('it is alone', async () => !(await a.status()).connected);
  await until('nobody is heard', async () => (await a.status()).hosts[0]?.state === 'silent');
  const alone = await a.status();
  t.is(await a.held(), 0);
  t.deepEqual(
    alone.hosts.map(({ host, state }) => [host, state]),
    [['b', 'silent']],
  );
  t.like(alone.policy, { revision: 1, isCurrent: false });
  await server.again();
  await until('they find each other', async () => (await a.held()) === 1);
  t.is(await a.daemon.end('SIGTERM'), 0, 'nobody is left held');
});
