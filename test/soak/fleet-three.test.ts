/**
 * Three hosts, each a daemon over a live guest in a network of its own, the clock of one an hour ahead, and the real server:
 * one policy; hosts cut off one by one, the server killed, a guarantee, words of another version, and a policy that nobody can use.
 * In `make soak` only: it takes minutes, and root's network namespaces.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { Kvm } from '@nats-io/kv';
import { connect } from '@nats-io/transport-node';
import test from 'ava';
import { execa } from 'execa';
import { bootFleetHost, type LiveHost } from '../live/fleet-host.ts';
import { until } from '../live/until.ts';
import { NatsServer } from '../runtime/fleet/nats-server.ts';

const POLICY = `[[policy]]
type = "idle-only"
name = "backups"
select = [{ host = "a", comm = "pi*" }]
ignore = [{ host = "a" }]
`;
const AHEAD =
  'env LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1 FAKETIME=+1h FAKETIME_DONT_FAKE_MONOTONIC=1';

/** A network namespace with one cable to this machine, which can be pulled. */
class Network implements AsyncDisposable {
  readonly name: string;
  readonly #number: number;

  private constructor(number: number) {
    this.#number = number;
    this.name = `domsched-${process.pid}-${number}`;
  }

  static async create(number: number): Promise<Network> {
    const network = new Network(number);
    const { name, cable } = network;
    await execa('ip', ['netns', 'add', name]);
    await execa('ip', ['link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name]);
    await execa('ip', ['address', 'add', `${network.server}/30`, 'dev', cable]);
    await execa('ip', ['-n', name, 'address', 'add', `10.231.${number}.2/30`, 'dev', 'eth0']);
    await execa('ip', ['-n', name, 'link', 'set', 'eth0', 'up']);
    await network.pull(false);
    return network;
  }

  get cable(): string {
    return `dsf${process.pid % 100_000}-${this.#number}`;
  }

  /** This machine, as it is reached from there. */
  get server(): string {
    return `10.231.${this.#number}.1`;
  }

  async pull(out: boolean): Promise<void> {
    await execa('ip', ['link', 'set', this.cable, out ? 'down' : 'up']);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await execa('ip', ['link', 'delete', this.cable], { reject: false });
    await execa('ip', ['netns', 'delete', this.name], { reject: false });
  }
}

test('three hosts: one policy; hosts, their networks and the server go and come back, and nobody stays held for who is not heard', async (t) => {
  t.timeout(3_600_000);
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-three-'));
  process.env.DOMSCHED_CACHE_DIR = directory;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const networks: Network[] = [];
  for (const number of [1, 2, 3]) networks.push(stack.use(await Network.create(number)));
  const server = stack.use(await NatsServer.start('', '0.0.0.0'));
  const boots = ['a', 'b', 'c'].map(async (name, i) => {
    const { name: space, server: address } = networks[i]!;
    const within = ['ip', 'netns', 'exec', space, ...(name === 'b' ? AHEAD.split(' ') : [])];
    return bootFleetHost(name, directory, `nats://${address}:${server.port}`, within);
  });
  for (const one of await Promise.allSettled(boots)) if (one.status === 'fulfilled') stack.use(one.value);
  const [a, b, c] = (await Promise.all(boots)) as [LiveHost, LiveHost, LiveHost];
  const all = [a, b, c];
  const file = path.join(directory, 'policy.toml');
  await writeFile(file, POLICY);
  const operator = path.join(directory, 'operator.toml');
  await writeFile(operator, `[fleet]\nservers = ["${server.url}"]\nname = "operator"\n`);
  const policy = (...args: string[]) => a.daemon.domsched('fleet', 'policy', ...args, '-c', operator);
  const inForce = (revision: number) =>
    until(`revision ${revision} is in force`, async () => {
      const found = await Promise.all(all.map(async (host) => (await host.status()).policy));
      return found.every((each) => each.revision === revision && each.isCurrent);
    });
  const holds = (count: number, what: string) => until(what, async () => (await a.held()) === count);
  const stateOf = async (of: LiveHost, host: string) =>
    (await of.status()).hosts.find((each) => each.host === host)?.state;

  t.regex((await policy('set', file)).stdout, /^revision 1 is the policy of the fleet/);
  await inForce(1);
  await holds(1, 'the backup is held');
  const { time } = b.daemon.log().at(-1) as unknown as { readonly time: number };
  const ahead = time - Date.now();
  t.true(ahead > 3_000_000, `the clock of b is ${ahead} ms ahead`);

  // It is held for as long as one of two works.
  await b.guest.qmp('stop');
  await until('b rests', async () => (await stateOf(a, 'b')) !== 'active');
  t.is(await stateOf(a, 'c'), 'active');
  await holds(1, 'it is held for c');
  await c.guest.qmp('stop');
  await holds(0, 'it goes on when both rest');
  await b.guest.qmp('cont');
  await holds(1, 'it is held for b');

  // b works on, and nobody hears it.
  await networks[1]!.pull(true);
  await until('b is silent', async () => (await stateOf(a, 'b')) === 'silent');
  await holds(0, 'it goes on though b works');
  await until('b knows that it is alone', async () => !(await b.status()).connected);
  await networks[1]!.pull(false);
  await holds(1, 'b is heard again');

  // The host that holds is cut off itself.
  await networks[0]!.pull(true);
  await holds(0, 'nobody is held for hosts that cannot be heard');
  // A policy that was set meanwhile is in force when it is back.
  t.regex((await policy('set', file, '-m', 'again')).stdout, /^revision 2 is the policy of the fleet/);
  await networks[0]!.pull(false);
  await inForce(2);
  await holds(1, 'all is as before');

  await server.kill();
  await holds(0, 'it goes on without the server');
  await until('all are alone', async () =>
    (await Promise.all(all.map((host) => host.status()))).every(({ connected }) => !connected),
  );
  await server.again();
  await inForce(2);
  await holds(1, 'all is as before');

  // What a host leaves its own goes first, whoever works elsewhere, and for however long.
  await a.configure('interval = 0.1\nmaxHold = false\nguarantee = 0.2\nslice = 1');
  a.daemon.signal('SIGHUP');
  for (let i = 0; i < 3; i++) {
    await until(
      'it has its slice',
      async () => (await a.held()) === 0 && (await stateOf(a, 'b')) === 'active',
    );
    await holds(1, 'and is held again');
  }
  await a.configure();
  a.daemon.signal('SIGHUP');

  // Of versions that are none.
  const stranger = await connect({ servers: server.url });
  stack.defer(() => stranger.close());
  for (const v of [0, 2])
    stranger.publish(
      'domsched.activity.d',
      JSON.stringify({ v, run: 'r', seq: 1, lease: 2_000, rests: false, classes: [] }),
    );
  await stranger.flush();
  await until('its words are not taken', async () =>
    (await a.status()).refused.some(
      ({ reason, count, last }) => reason === 'another version' && count === 2 && last === 'd',
    ),
  );
  t.is(await stateOf(a, 'd'), undefined);

  // What no version reads is in the store: each host keeps the policy that it has, and says so.
  await t.throwsAsync(policy('set', await wrongPolicy(directory)), { message: /policy\[0\]\.type/ });
  const kv = await new Kvm(stranger).open('domsched-policy');
  const revision = await kv.put('policy', 'no policy');
  await until('it is refused by all', async () =>
    (await Promise.all(all.map((host) => host.status()))).every(
      (each) => each.policy.refused?.revision === revision && each.policy.revision === 2,
    ),
  );
  await holds(1, 'the one before is in force');
  t.regex((await policy('rollback', '2')).stdout, new RegExp(`^revision ${revision + 1} `));
  await inForce(revision + 1);
  await holds(1, 'and still is');
  for (const { daemon } of all) t.is(await daemon.end('SIGTERM'), 0, 'nobody is left held');
});

async function wrongPolicy(directory: string): Promise<string> {
  const file = path.join(directory, 'wrong.toml');
  await writeFile(file, '[[policy]]\ntype = "idle"\n');
  return file;
}
