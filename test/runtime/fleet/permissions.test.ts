/** The example of a server's configuration: what it lets a host do, and what not. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Kvm } from '@nats-io/kv';
import { Objm } from '@nats-io/obj';
import { connect, nkeys } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { z } from 'zod';
import type { DomschedError } from '../../../runtime/error.ts';
import { FleetClient } from '../../../runtime/fleet/client.ts';
import { FLEET, type FleetConfig } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import { connectionOptions } from '../../../runtime/fleet/link.ts';
import { PolicyCache } from '../../../runtime/fleet/policy-cache.ts';
import { until } from '../../live/until.ts';
import { NatsServer } from './nats-server.ts';

/** A folder for credentials, and `[fleet]` of somebody who has some. */
async function members(t: ExecutionContext, server: NatsServer) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-permissions-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const configOf = async (name: string, secret = `${name}:${name}-secret`) => {
    const credentials = path.join(directory, name);
    await writeFile(credentials, `${secret}\n`, { mode: 0o600 });
    return FLEET.parse({ servers: [server.url], name, credentials, tls: { ca: server.ca } });
  };
  return { directory, configOf };
}

/** Opens a connection; what a busy machine broke off meanwhile is begun again. */
async function open(config: FleetConfig): Promise<FleetClient> {
  return until('the server answers', async (swallow) => {
    try {
      return await FleetClient.open(config);
    } catch (error) {
      if ((error as DomschedError).code === 'host-unreachable') return swallow(error);
      throw error;
    }
  });
}

const connected = (config: FleetConfig) =>
  until('the server answers', (swallow) => connect(connectionOptions(config)).catch(swallow));

test('with the example’s permissions a host says what it does itself and reads the policy, and nothing else', async (t) => {
  await using server = await NatsServer.ofExample();
  const { directory, configOf } = await members(t, server);
  const applied: string[] = [];
  const host = async (name: string) => {
    const config = await configOf(name);
    const cache = new PolicyCache(config, path.join(directory, `cache-${name}`));
    const fleet = new Fleet(config, pino({ level: 'silent' }), undefined, cache);
    fleet.serve(
      async ({ policy }) => {
        applied.push(`${name}: ${policy}`);
      },
      {
        checkPolicy: () => [],
        processes: async () => ({ rows: [], errors: [] }),
        accounts: async () => ({ ms: performance.now(), threads: [], domains: [] }),
      },
    );
    t.teardown(() => fleet.close());
    return fleet;
  };
  await using operator = await open(await configOf('operator'));
  t.is(await operator.policies.set({ policy: 'first', by: 'x', comment: '' }, 0), 1);
  const [one, two] = [await host('host-1'), await host('host-2')];
  await until('both have the policy', () => applied.length === 2);
  await operator.policies.set({ policy: 'second', by: 'x', comment: '' }, 1);
  await until('both have the next', () => applied.length === 4);
  const verdicts = await operator.check('x');
  t.deepEqual(
    verdicts.map(({ host: name }) => name),
    ['host-1', 'host-2'],
  );

  const begun = await operator.beginBlame({ id: 'of-this-test', seconds: 60, interval: 1, hosts: [] });
  const ended = await operator.endBlame('of-this-test');
  for (const { answers } of [begun, ended])
    t.deepEqual(
      answers.map((one) => [one.host, 'error' in one]),
      [
        ['host-1', false],
        ['host-2', false],
      ],
    );

  const evil = await connected(await configOf('host-1'));
  t.teardown(() => evil.close());
  const denied: string[] = [];
  (async () => {
    for await (const status of evil.status()) if (status.type === 'error') denied.push(status.error.message);
  })();
  const good = { v: 1, run: 'r', seq: 1, rests: false, lease: 60_000, classes: [] };
  for (const subject of [
    'domsched.activity.host-2',
    'domsched.ask.ps',
    '$JS.API.STREAM.DELETE.KV_domsched-policy',
  ]) {
    evil.publish(subject, JSON.stringify(good));
    await evil.flush();
    await until(`${subject} is denied`, () => denied.some((text) => text.includes(subject)));
  }
  // A host may listen to the one host that its policies name, too.
  two.watch({ selectors: [], thresholds: [], hosts: ['host-1'] });
  await two.settled();
  evil.publish('domsched.activity.host-1', JSON.stringify(good));
  await until('it is heard', () => two.status().hosts.some(({ host: name }) => name === 'host-1'));
  // Layouts: a host reads what the operator gave, and gives none.
  const given = await connected(await configOf('operator'));
  t.teardown(() => given.close());
  const objects = await new Objm(given).create('domsched-layouts');
  await objects.putBlob({ name: 'one' }, Buffer.from('a layout'));
  const readable = await new Objm(evil).open('domsched-layouts');
  t.is(Buffer.from((await readable.getBlob('one'))!).toString(), 'a layout');
  await t.throwsAsync(readable.putBlob({ name: 'one' }, Buffer.from('forged')));
  await t.throwsAsync(new Objm(evil).create('another'));
  t.is(Buffer.from((await objects.getBlob('one'))!).toString(), 'a layout');
  const kv = await new Kvm(evil).open('domsched-policy');
  await t.throwsAsync(kv.put('policy', 'forged'));
  evil.subscribe('_INBOX_operator.>');
  await evil.flush();
  await until('others’ answers are not read', () => denied.some((text) => text.includes('_INBOX_operator')));
  t.is((await operator.policies.get())!.policy, 'second');
  t.deepEqual(one.status().hosts, [], 'nobody heard what host-1 said in the name of host-2');
  t.deepEqual(two.status().refused, []);
});

test('what a host has the server deliver out of a stream is no word of another host, and no question', async (t) => {
  await using server = await NatsServer.ofExample((accounts) =>
    accounts.replace(
      '"domsched.activity.host-1"',
      '"domsched.activity.host-1", "$O.domsched-layouts.>", "$JS.API.STREAM.CREATE.OBJ_domsched-layouts"',
    ),
  );
  const { directory, configOf } = await members(t, server);
  const config = await configOf('host-2');
  const fleet = new Fleet(config, pino({ level: 'silent' }), undefined, new PolicyCache(config, directory));
  let asked = 0;
  fleet.serve(async () => {}, {
    checkPolicy: () => [],
    processes: async () => {
      asked++;
      return { rows: [], errors: [] };
    },
    accounts: async () => ({ ms: performance.now(), threads: [], domains: [] }),
  });
  t.teardown(() => fleet.close());
  await until('it is connected', () => fleet.state.connected);
  fleet.watch({ selectors: [], thresholds: [], hosts: ['host-3'] });
  await fleet.settled();
  const evil = await connected(await configOf('host-1'));
  t.teardown(() => evil.close());
  // It may write layouts, and so anything into a stream that it may read.
  await new Objm(evil).create('domsched-layouts');
  const stream = 'OBJ_domsched-layouts';
  /** The server says it to whoever listens to `subject`, though host-1 may not. */
  const delivered = async (subject: string, word: object) => {
    const name = subject.replaceAll('.', '-');
    const stored = `$O.domsched-layouts.C.${name}`;
    await evil.request(stored, JSON.stringify(word));
    const heard = evil.subscribe(subject, { max: 1 });
    const config = { name, deliver_subject: subject, filter_subject: stored, ack_policy: 'none' };
    const asks = { stream_name: stream, config: { ...config, deliver_policy: 'all' } };
    await evil.request(`$JS.API.CONSUMER.CREATE.${stream}.${name}.${stored}`, JSON.stringify(asks));
    for await (const { data } of heard) t.deepEqual(JSON.parse(Buffer.from(data).toString()), word);
  };
  const word = { v: 1, run: 'r', seq: 1, rests: false, lease: 60_000, classes: [] };
  await delivered('domsched.activity.host-3', word);
  await until('it is refused', () => fleet.status().refused.length > 0);
  t.like(fleet.status().refused[0], { reason: 'not from its host', count: 1 });
  t.deepEqual(fleet.status().hosts, []);
  await delivered('domsched.ask.ps', { v: 1 });
  // The operator's is answered, and came after that.
  await using operator = await open(await configOf('operator'));
  await operator.processes(z.unknown(), z.unknown());
  t.is(asked, 1);
});

test('an NKey of a host’s own is let in over TLS; who is not known, or is no operator, is refused by name', async (t) => {
  const key = nkeys.createUser();
  await using server = await NatsServer.ofExample((accounts) =>
    accounts.replace('user: host-2, password: "host-2-secret"', `nkey: ${key.getPublicKey()}`),
  );
  const { configOf } = await members(t, server);
  await using operator = await open(await configOf('operator'));
  const policy = { by: 'x', comment: '' };
  t.is(await operator.policies.set({ policy: 'first', ...policy }, 0), 1);
  const seed = Buffer.from(key.getSeed()).toString();
  for (const host of [await configOf('host-1'), await configOf('host-2', seed)]) {
    await using client = await open(host);
    const read = await client.policies.follow().next();
    t.like(read.value, { revision: 1, policy: 'first' });
    await t.throwsAsync(client.policies.set({ policy: 'forged', ...policy }, 1), {
      code: 'refused',
      message: /the fleet's server does not allow it: .*permissions violation/i,
    });
  }
  t.is((await operator.policies.get())!.policy, 'first');
  const good = await configOf('host-1');
  const { credentials: _, ...nobody } = good;
  for (const config of [nobody, await configOf('host-1', 'host-1:wrong'), await configOf('host-2')])
    await t.throwsAsync(open(config), {
      code: 'refused',
      message: /does not let this host in .*Authorization Violation; see credentials and name in \[fleet\]/,
    });
});

test('a server of another authority, for another name, or without TLS is refused, by operators and daemons', async (t) => {
  await using server = await NatsServer.ofExample();
  await using plain = await NatsServer.start();
  const { configOf, directory } = await members(t, server);
  const good = await configOf('host-1');
  const untrusted =
    /certificate of the fleet's server cannot be trusted \(.*\): [A-Z_]+; ca of tls in \[fleet\]/;
  for (const [wrong, message] of [
    [{ tls: { ca: server.strangeCa } }, untrusted],
    [{ tls: true }, untrusted],
    [{ tls: undefined }, untrusted],
    [{ servers: [server.url.replace('127.0.0.1', 'localhost')] }, untrusted],
    [{ servers: [plain.url] }, /the fleet's server does not encrypt \(.*\); give the server a certificate/],
  ] as [Partial<FleetConfig>, RegExp][]) {
    const config = { ...good, ...wrong };
    await t.throwsAsync(open(config), { code: 'refused', message });
    const cache = new PolicyCache(config, directory);
    const fleet = new Fleet(config, pino({ level: 'silent' }), undefined, cache);
    t.teardown(() => fleet.close());
    await until('it is known why', () => message.test(fleet.status().error ?? ''));
    t.false(fleet.status().connected);
  }
});
