/** One policy for all hosts: on the real server, with the daemon's own reading of it. */
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { Kvm } from '@nats-io/kv';
import { connect } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import pino from 'pino';
import { projectDirectory } from '../../../kernels/paths.ts';
import { parseConfig } from '../../../runtime/daemon/config.ts';
import { parseFleetPolicy, problemsOf, withFleetPolicy } from '../../../runtime/daemon/fleet-policy.ts';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import { PolicyCache } from '../../../runtime/fleet/policy-cache.ts';
import type { StoredPolicy } from '../../../runtime/fleet/stored-policy.ts';
import { until } from '../../live/until.ts';
import { NatsServer } from './nats-server.ts';

const GOOD = '[[policy]]\ntype = "idle-only"\nname = "backups"\nselect = [{ comm = "backup*" }]\n';
const OTHER = GOOD.replace('backup*', 'restic');
const program = path.join(projectDirectory, 'dist', 'domsched.js');

async function folder(t: ExecutionContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-'));
  t.teardown(() => rm(made, { recursive: true, force: true }));
  return made;
}

/** A host that puts policies in force as a daemon does, and says which. */
function host(t: ExecutionContext, server: NatsServer, name: string, directory: string, cannot = '') {
  const config = FLEET.parse({ servers: [server.url], name });
  const fleet = new Fleet(config, pino({ level: 'silent' }), undefined, new PolicyCache(config, directory));
  const applied: StoredPolicy[] = [];
  const problems = (text: string) =>
    cannot !== '' && text.includes(cannot) ? [`${cannot}: unknown here`] : problemsOf(text);
  fleet.serve(
    async (stored) => {
      const [problem] = problems(stored.policy);
      if (problem !== undefined) throw new Error(problem);
      applied.push(stored);
    },
    {
      checkPolicy: problems,
      processes: async () => ({ rows: [], errors: [] }),
      accounts: async () => ({ ms: 0, threads: [], domains: [] }),
    },
  );
  t.teardown(() => fleet.close());
  return { fleet, applied };
}

async function operator(t: ExecutionContext, server: NatsServer) {
  const directory = await folder(t);
  const config = path.join(directory, 'operator.toml');
  await writeFile(config, `[fleet]\nservers = ["${server.url}"]\nname = "operator"\n`);
  return async (input: string, ...args: string[]) =>
    execa(process.execPath, [program, 'fleet', 'policy', ...args, '-c', config], {
      input,
      reject: false,
    });
}

test('set, get, history, rollback: every host has it at once, and who was cut off when it is back', async (t) => {
  await using server = await NatsServer.start();
  const policy = await operator(t, server);
  const directory = await folder(t);
  const none = await policy('', 'get');
  t.is(none.exitCode, 2, none.stderr);
  t.regex(none.stderr, /the fleet has no policy yet: domsched fleet policy set FILE gives it one/);
  t.is((await policy('', 'history')).stdout, 'The fleet has no policy yet.');
  t.is((await policy('', 'history', '--json')).stdout, '[]');
  const early = host(t, server, 'early', await folder(t));
  await until('it knows', () => early.fleet.status().policy.error === 'no policy has been set');
  await early.fleet.close();
  const first = await policy(GOOD, 'set', '-', '-m', 'nightly');
  t.is(first.exitCode, 0, first.stderr);
  t.regex(first.stdout, /^revision 1 is the policy of the fleet, but no host answered$/);
  t.is((await policy('', 'get')).stdout, GOOD.trim());

  const a = host(t, server, 'a', directory);
  await until('it is in force', () => a.applied.length === 1);
  t.like(a.applied[0], { revision: 1, policy: GOOD, comment: 'nightly' });
  await until('and said so', () => a.fleet.state.policy.isCurrent);
  t.like(a.fleet.state.policy, { revision: 1, comment: 'nightly', isCurrent: true });

  const second = await policy(OTHER, 'set', '-');
  t.regex(second.stdout, /^revision 2 .*, 1 host answered$/);
  await until('the second is in force', () => a.applied.length === 2);
  t.regex((await policy('', 'history')).stdout, /2[^\n]*@[^\n]*\n[^\n]*1[^\n]*nightly/);

  // The server goes, and comes back with what it stored.
  await server.kill();
  await until('cut off', () => !a.fleet.state.connected);
  t.false(a.fleet.state.policy.isCurrent);
  t.true(a.fleet.state.policy.ageMs! >= 0);
  await server.again();
  const back = await policy('', 'rollback', '1');
  t.is(back.exitCode, 0, back.stderr);
  await until('the first is in force again', () => a.applied.at(-1)?.revision === 3);
  t.is(a.applied.at(-1)!.policy, GOOD);
  const all = JSON.parse((await policy('', 'history', '--json')).stdout) as StoredPolicy[];
  t.deepEqual(
    all.map(({ revision, comment }) => [revision, comment]),
    [
      [3, 'back to revision 1'],
      [2, ''],
      [1, 'nightly'],
    ],
  );
});

test('what a host cannot use is not set, with each host’s reason; set all the same, that host keeps the one before', async (t) => {
  await using server = await NatsServer.start();
  const policy = await operator(t, server);
  await policy(GOOD, 'set', '-');
  const [a, old] = [host(t, server, 'a', await folder(t)), host(t, server, 'old', await folder(t), 'restic')];
  await until('both have it', () => [a, old].every(({ applied }) => applied.length === 1));
  for (const action of ['check', 'set']) {
    const refused = await policy(OTHER, action, '-');
    t.is(refused.exitCode, 1);
    t.regex(refused.stderr, /cannot be used by every host:\n {2}old \(\d[^)]*\): restic: unknown here/);
  }
  const wrong = await policy('[[policy]]\ntype = "idle"\n', 'set', '-');
  t.is(wrong.exitCode, 1);
  t.regex(wrong.stderr, /policy\[0\]\.type/);
  t.is(JSON.parse((await policy('', 'history', '--json')).stdout).length, 1);
  const forced = await policy(OTHER, 'set', '-', '--force');
  t.is(forced.exitCode, 0, forced.stderr);
  await until('it is refused', () => old.fleet.state.policy.refused !== undefined);
  t.like(old.fleet.state.policy, {
    revision: 1,
    isCurrent: false,
    refused: { revision: 2, why: 'restic: unknown here' },
  });
  await until('the other one has it', () => a.fleet.state.policy.revision === 2);
});

test('a start without the store has the last policy, and says how old it is; others cannot forge it', async (t) => {
  const directory = await folder(t);
  {
    await using server = await NatsServer.start();
    const policy = await operator(t, server);
    await policy(GOOD, 'set', '-');
    const { fleet } = host(t, server, 'a', directory);
    await until('it is in force and kept', () => fleet.state.policy.isCurrent);
    await server.kill();
    const alone = host(t, server, 'a', directory);
    t.like(alone.fleet.policy, { revision: 1, policy: GOOD });
    t.true(alone.fleet.state.policy.ageMs! < 600_000);
    const elsewhere = FLEET.parse({ servers: ['nats://127.0.0.1:1'], name: 'a' });
    t.is(new PolicyCache(elsewhere, directory).read(), undefined, 'that is another fleet');
    const config = FLEET.parse({ servers: [server.url], name: 'a' });
    const [file] = (await execa('find', [directory, '-name', '*.json'])).stdout.split('\n');
    t.is((await stat(file!)).mode & 0o777, 0o600);
    const text = await readFile(file!, 'utf8');
    await writeFile(file!, text.slice(0, 50));
    t.is(new PolicyCache(config, directory).read(), undefined);
    await writeFile(file!, text);
    await chmod(file!, 0o666);
    t.is(new PolicyCache(config, directory).read(), undefined);
  }
});

test('what is in the store and no policy of ours is refused, and named; two who set at once are told', async (t) => {
  await using server = await NatsServer.start();
  const policy = await operator(t, server);
  await policy(GOOD, 'set', '-');
  const { fleet, applied } = host(t, server, 'a', await folder(t));
  await until('it is in force', () => applied.length === 1);
  const connection = await connect({ servers: server.url });
  t.teardown(() => connection.close());
  const kv = await new Kvm(connection).open('domsched-policy');
  for (const [i, wrong] of [
    'no JSON',
    '{"v":2,"policy":"","by":"x","comment":""}',
    JSON.stringify({ v: 1, policy: GOOD, by: 'a\u001b[2J', comment: '' }),
    JSON.stringify({ v: 1, policy: 'x'.repeat(200_000), by: 'x', comment: '' }),
  ].entries()) {
    await kv.put('policy', wrong);
    await until('it is refused', () => fleet.state.policy.refused?.revision === i + 2);
  }
  t.is(applied.length, 1);
  t.like(fleet.policy, { revision: 1, policy: GOOD });
  // An operator sets one over it, and over none.
  t.is((await policy(OTHER, 'set', '-')).exitCode, 0);
  await until('a good one is in force', () => applied.length === 2);
  t.is(fleet.state.policy.refused, undefined);
  await kv.delete('policy');
  t.is((await policy(GOOD, 'set', '-')).exitCode, 0);
  await until('again', () => applied.length === 3);
  await t.throwsAsync(kv.put('policy', 'late', { previousSeq: 1 }), { message: /wrong last sequence/ });
});

test('a policy is read as a configuration is, and is less: no module, no limits of a host', (t) => {
  t.deepEqual(problemsOf(GOOD), []);
  for (const [wrong, why] of [
    ['x = ', /line 1/],
    ['[[policy]]\ntype = "module"\nselect = [{}]\nmodule = "/tmp/x.mjs"\n', /no module: code is not passed/],
    ['guarantee = 0\n', /guarantee/],
    ['maxHold = false\n', /maxHold/],
    [`${GOOD}${GOOD}`, /policy 1 is called backups too/],
  ] as const)
    t.regex(problemsOf(wrong).join('\n'), why);
});

test('this host’s limits go before the fleet’s policy', (t) => {
  const own = parseConfig(
    'maxHold = 30\nslice = 2\nnever = [{ comm = "sshd" }]\n[[policy]]\ntype = "io"\nselect = [{ comm = "x" }]\n',
    'own',
  );
  const theirs = parseFleetPolicy(
    `never = [{ comm = "nginx" }]\n${GOOD}maxHold = false\nslice = 0.1\n${OTHER.replace('backups', 'short')}maxHold = 10\nslice = 5\n`,
    'theirs',
  );
  const { never, policy, guarantee } = withFleetPolicy(own, theirs);
  t.deepEqual(never, [{ comm: 'sshd' }, { comm: 'nginx' }]);
  t.is(guarantee, 0.1);
  t.like(policy[0], { type: 'io' });
  t.deepEqual(
    policy.slice(1).map(({ name, maxHold, slice }) => [name, maxHold, slice]),
    [
      ['fleet/backups', 30, 2],
      ['fleet/short', 10, 5],
    ],
  );
  t.throws(() => parseConfig(`${GOOD.replace('backups', 'fleet/backups')}`, 'own'), { message: /fleet\// });
});
