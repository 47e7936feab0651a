/** Daemons over domains in memory, on the real server: each with a clock of its own, an hour apart. */
import { connect } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import { WITNESSES } from '../../../runtime/fleet/hearing.ts';
import { encode } from '../../../runtime/fleet/message.ts';
import { Metrics } from '../../../runtime/metrics/metrics.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { until } from '../../live/until.ts';
import { BACKUP, BACKUP_LAST, FakeDaemon, isQueued, run, SERVER, twoGuests } from '../daemon/fake-daemon.ts';
import type { SyntheticGuest } from '../guest/synthetic.ts';
import { NatsServer } from './nats-server.ts';
import { SlowPath } from './slow-path.ts';

const HOUR = 3_600_000;
const LEASE_MS = 5_000;

interface FleetMember {
  readonly host: FakeDaemon;
  readonly fleet: Fleet;
}

/** Two hosts: `a` with a backup, far from the server, and `b` with a server, whose clock is an hour ahead. */
async function twoHosts(t: ExecutionContext, server: NatsServer) {
  const { batch, web } = await twoGuests();
  const path = await SlowPath.to(server, 100);
  t.teardown(() => path[Symbol.dispose]());
  const a = await member(t, path, 'a', batch, 1_000);
  const b = await member(t, server, 'b', web, HOUR);
  for (const { host } of [a, b]) await host.start();
  await connected(a, b);
  return { a, b, batch, web };
}

async function member(
  t: ExecutionContext,
  server: Pick<NatsServer, 'url'>,
  name: string,
  guest: SyntheticGuest,
  nowMs: number,
): Promise<FleetMember> {
  let clock = () => nowMs;
  const config = FLEET.parse({ servers: [server.url], name, lease: LEASE_MS / 1000 });
  const fleet = new Fleet(config, pino({ level: 'silent' }), () => clock());
  fleet.watch({ selectors: [{ comm: 'backup*' }], thresholds: [] });
  const host = await FakeDaemon.of([guest], { fleet, nowMs, entries: [BACKUP_LAST] });
  clock = () => host.nowMs;
  t.teardown(() => host[Symbol.asyncDispose]());
  return { host, fleet };
}

/** What one says when both are connected may reach the server before it knows that the other one listens. */
async function connected(...members: readonly FleetMember[]) {
  await until('all are connected', () => members.every(({ fleet }) => fleet.state.connected), 60_000, 20);
  for (const { fleet } of members) await fleet.settled();
}

/** The server of `b` works for one look, which `a` has heard of. */
async function works({ a, b, web }: Awaited<ReturnType<typeof twoHosts>>, ms = 300) {
  const before = a.fleet.state.received;
  if (ms > 0) run(web, SERVER, ms);
  await b.host.tick();
  return before;
}

async function heard({ fleet }: FleetMember, before: number) {
  await until('it is heard', () => fleet.state.received > before, 60_000, 5);
}

/** Two hosts, of which one holds its backup since the other one works. */
async function held(t: ExecutionContext, server: NatsServer) {
  const hosts = await twoHosts(t, server);
  await heard(hosts.a, await works(hosts));
  await hosts.a.host.tick();
  t.false(isQueued(hosts.batch, BACKUP));
  return hosts;
}

test('a backup of one host is held while a server of another one works, and goes on after; clocks are an hour apart', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await twoHosts(t, server);
  const { a, b, batch } = hosts;
  await a.host.tick();
  t.true(isQueued(batch, BACKUP), 'nobody works');
  await heard(a, await works(hosts));
  await a.host.tick();
  t.false(isQueued(batch, BACKUP));
  const tick = await a.host.tick();
  const backupOf = ({ domains }: Tick) => domains[0]!.processes.find(({ comm }) => comm === 'backup')!;
  t.is(backupOf(tick).held!.reason, 'b/web: server (10) runs');
  t.is(backupOf(tick).heldFor, 'b');
  const [known, ...others] = tick.fleet!.heard;
  t.deepEqual(others, []);
  t.like(known, { host: 'b', state: 'active' });
  t.deepEqual(known!.classes, [{ domain: 'web', comm: 'server', share: 0.1, waits: false }]);
  // By the clock of the tick, which began when a's daemon did, whatever the clocks of both hosts say.
  t.true(known!.heardMs >= 0 && known!.heardMs <= tick.ms);
  t.like(tick.fleet, { name: 'a', connected: true, hosts: 1, silent: [] });
  t.deepEqual(
    tick.domains.map(({ name }) => name),
    ['batch'],
    'another host is no domain of this one',
  );
  t.like(a.fleet.status().hosts[0], {
    host: 'b',
    state: 'active',
    activity: [{ domain: 'web', comm: 'server', share: 0.1 }],
  });
  // It rests: told when it has done so for a second.
  const before = a.fleet.state.received;
  for (let i = 0; i < 4; i++) await works(hosts, 0);
  await heard(a, before);
  await a.host.tick();
  t.true(isQueued(batch, BACKUP));
  t.false('heldFor' in backupOf(await a.host.tick()));
  t.is(a.fleet.status().hosts[0]!.state, 'at rest');
  t.is(b.fleet.state.sent, 2, 'nothing but changes was said');
});

test('while it goes on working a host says so once in a lease, and no more', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await twoHosts(t, server);
  for (let i = 0; i < 41; i++) await works(hosts);
  await until('all is heard', () => hosts.a.fleet.state.received >= hosts.b.fleet.state.sent);
  t.is(hosts.b.fleet.state.sent, 5, '20 s');
});

test('the server is killed: what is held goes on within two leases, and is held again when the server is back', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await held(t, server);
  const { a, b, batch } = hosts;
  await server.kill();
  await until('both are cut off', () => [a, b].every(({ fleet }) => !fleet.state.connected), 60_000, 20);
  // On each host's own clock; `b` works all the time.
  let ms = 0;
  let cut: Tick | undefined;
  for (; !isQueued(batch, BACKUP); ms += 500) {
    await works(hosts);
    cut = await a.host.tick();
    if (ms > 4 * LEASE_MS) break;
  }
  t.true(ms >= 2 * LEASE_MS - 1_000 && ms <= 2 * LEASE_MS + 500, `${ms} ms`);
  t.like(cut!.fleet, { connected: false, silent: ['b'] });
  t.is(a.fleet.status().hosts[0]!.state, 'silent');
  const before = a.fleet.state.received;
  await server.again();
  await connected(a, b);
  await works(hosts);
  await heard(a, before);
  await a.host.tick();
  t.false(isQueued(batch, BACKUP));
  t.deepEqual(a.fleet.state.silent, []);
});

test('a host that ends lets others go on at once', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await held(t, server);
  const { a, b, batch } = hosts;
  const before = a.fleet.state.received;
  await b.fleet.close();
  await heard(a, before);
  await a.host.tick();
  t.true(isQueued(batch, BACKUP));
});

test('a network that loses everything is a host cut off: pings tell, and both find each other again', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await twoHosts(t, server);
  const { a, b } = hosts;
  server.pause(true);
  await until('both are cut off', () => [a, b].every(({ fleet }) => !fleet.state.connected), 60_000, 20);
  server.pause(false);
  await connected(a, b);
  await heard(a, await works(hosts));
  t.true(a.fleet.isActive);
});

test('a host where nobody could be held for others does not hear them, until somebody is there again', async (t) => {
  await using server = await NatsServer.start();
  const { a, b } = await twoHosts(t, server);
  const stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  let seq = 0;
  /** Somebody else says something, which `a` hears: then the server has passed it on to all who listen. */
  const said = async (...hears: FleetMember[]) => {
    const before = hears.map(({ fleet }) => fleet.state.received);
    const message = { run: 'r', seq: ++seq, leaseMs: LEASE_MS, rests: false, classes: [] };
    stranger.publish('domsched.activity.c', encode(message));
    await stranger.flush();
    await until(
      'it is heard',
      () => hears.every(({ fleet }, i) => fleet.state.received > before[i]!),
      60_000,
      5,
    );
  };
  await said(a, b);
  t.true(b.fleet.state.listens, 'a while after the start');
  for (const { host } of [a, b]) {
    host.nowMs += 60_000;
    await host.tick();
  }
  t.false(b.fleet.state.listens);
  t.true(a.fleet.state.listens, 'its backup could be held');
  t.deepEqual(b.fleet.status().hosts, []);
  for (const { fleet } of [a, b]) await fleet.settled();
  const { received } = b.fleet.state;
  await said(a);
  t.is(b.fleet.state.received, received);

  // A policy of `b` that is about its server: what is at work elsewhere counts for it.
  const policy = { ...BACKUP_LAST, name: 'servers', select: selector([{ comm: 'server' }]) };
  b.host.daemon.reload({ ...b.host.settings([policy]), fleet: b.fleet });
  await b.host.tick();
  t.true(b.fleet.state.listens);
  await b.fleet.settled();
  await said(a, b);
  // Over a server that is away, too.
  await server.kill();
  await until('both are cut off', () => [a, b].every(({ fleet }) => !fleet.state.connected), 60_000, 20);
  await server.again();
  await connected(a, b);
  await stranger.close();
  t.true(b.fleet.state.listens);
});

test('a host whose policies name the hosts that they wait for hears those alone', async (t) => {
  await using server = await NatsServer.start();
  const config = FLEET.parse({ servers: [server.url], name: 'a', lease: LEASE_MS / 1000 });
  const fleet = new Fleet(config, pino({ level: 'silent' }));
  t.teardown(() => fleet.close());
  let stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  const who = { domain: 'd', comm: 'c', pid: 7 };
  const classes = [{ matched: [], first: false, share: 1, waits: false, who }];
  let seq = 0;
  /** All say something, the named one last: who hears it has been passed on what it wants of the others. */
  const said = async (heardOf: number, ...hosts: readonly string[]) => {
    const { received } = fleet.state;
    const message = encode({ run: 'r', seq: ++seq, leaseMs: LEASE_MS, rests: false, classes });
    for (const host of hosts) stranger.publish(`domsched.activity.${host}`, message);
    await stranger.flush();
    await until('they are heard', () => fleet.state.received >= received + heardOf, 60_000, 5);
    t.is(fleet.state.received, received + heardOf);
    return fleet.domains(500).map(({ name }) => name);
  };
  await until('it is connected', () => fleet.state.connected, 60_000, 20);
  const interest = { selectors: [], thresholds: [] };
  fleet.watch({ ...interest, hosts: ['a', 'b'] });
  await fleet.settled();
  t.deepEqual(await said(1, 'c', 'd', 'b'), ['b']);
  t.deepEqual(fleet.status().listensTo, ['a', 'b']);
  // Another policy: what b said counts no longer, and is not told to have fallen silent.
  fleet.watch({ ...interest, hosts: ['c'] });
  t.deepEqual(fleet.status().hosts, []);
  await fleet.settled();
  t.deepEqual(await said(1, 'b', 'c'), ['c']);
  // Over a server that is away, too.
  await stranger.close();
  await server.kill();
  await until('it is cut off', () => !fleet.state.connected, 60_000, 20);
  await server.again();
  stranger = await connect({ servers: server.url });
  await until('it is back', () => fleet.state.connected, 60_000, 20);
  await fleet.settled();
  await said(1, 'b', 'c');
  fleet.watch(interest);
  await fleet.settled();
  t.deepEqual((await said(2, 'b', 'c')).sort(), ['b', 'c']);
  t.is(fleet.status().listensTo, null);
});

test('of many hosts at work one that waits for anybody hears a few, over the real server, and others in their place', async (t) => {
  await using server = await NatsServer.start();
  const config = FLEET.parse({ servers: [server.url], name: 'a', lease: LEASE_MS / 1000 });
  const fleet = new Fleet(config, pino({ level: 'silent' }));
  t.teardown(() => fleet.close());
  const stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  await until('it is connected', () => fleet.state.connected, 60_000, 20);
  fleet.watch({
    selectors: [],
    thresholds: [],
    questions: [{ name: 'any', isAnsweredBy: ({ ranNs }) => ranNs > 0 }],
  });
  await fleet.settled();
  const who = { domain: 'd', comm: 'c', pid: 7 };
  const classes = [{ matched: [], first: false, share: 1, waits: false, who }];
  let seq = 0;
  const all = Array.from({ length: 200 }, (_, i) => `h${i}`);
  const say = async (hosts: readonly string[], rests = false) => {
    seq++;
    for (const host of hosts)
      stranger.publish(
        `domsched.activity.${host}`,
        encode({ run: 'r', seq, leaseMs: LEASE_MS, rests, classes: rests ? [] : classes }),
      );
    await stranger.flush();
    // What the server passed on before its answer has come, and it knows what is wanted since.
    for (let i = 0; i < 2; i++) await fleet.settled();
  };
  const known = () => fleet.domains(500).map(({ name }) => name);
  await say(all);
  t.true(fleet.state.few);
  t.true(fleet.status().few);
  const first = known();
  t.is(first.length, WITNESSES);
  const { received } = fleet.state;
  await say(all);
  t.is(fleet.state.received - received, WITNESSES, 'the rest are not passed on');
  await say(first, true);
  t.false(fleet.state.few);
  t.is(known().length, 1, 'the last one is believed: others may work');
  await say(all.filter((host) => !first.includes(host)));
  t.true(fleet.state.few);
  t.deepEqual(
    known().filter((host) => first.includes(host)),
    [],
  );
  t.is(fleet.lost, 0);
});

test('what policies do not ask, as nobody here is their subject, is not heard for: not at once, but a minute later', async (t) => {
  await using server = await NatsServer.start();
  const config = FLEET.parse({ servers: [server.url], name: 'a', lease: LEASE_MS / 1000 });
  let laterMs = 0;
  const fleet = new Fleet(config, pino({ level: 'silent' }), () => performance.now() + laterMs);
  t.teardown(() => fleet.close());
  const stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  await until('it is connected', () => fleet.state.connected, 60_000, 20);
  const uses = (share: number) => ({
    name: `of ${share}`,
    isAnsweredBy: ({ ranNs }: { readonly ranNs: number }) => ranNs >= share * 1e9,
  });
  fleet.watch({ selectors: [], thresholds: [], hosts: ['db'], questions: [uses(1), uses(2)] });
  await fleet.settled();
  const who = { domain: 'd', comm: 'c', pid: 7 };
  const classes = [{ matched: [], first: false, share: 1, waits: false, who }];
  let seq = 0;
  const allSay = async () => {
    const message = { run: 'r', seq: ++seq, leaseMs: LEASE_MS, rests: false, classes };
    for (let i = 0; i < 200; i++) stranger.publish(`domsched.activity.h${i}`, encode(message));
    await stranger.flush();
    for (let i = 0; i < 2; i++) await fleet.settled();
  };
  await allSay();
  t.is(fleet.domains(500).length, 200, 'none of them uses two CPUs');
  fleet.listen(new Set(['of 1', 'of 2']));
  t.false(fleet.state.few);
  fleet.listen(new Set(['of 1']));
  t.false(fleet.state.few);
  for (; laterMs <= 60_000; laterMs += 1_000) fleet.listen(new Set(['of 1']));
  await allSay();
  t.true(fleet.state.few);
  t.is(fleet.status().listensTo, null);
  t.is(fleet.domains(500).length, WITNESSES);
  for (; laterMs <= 122_000; laterMs += 1_000) fleet.listen(new Set(['whom they name']));
  t.deepEqual(fleet.status().listensTo, ['db']);
  t.deepEqual(fleet.domains(500), []);
  t.true(fleet.state.listens);
  for (; laterMs <= 184_000; laterMs += 1_000) fleet.listen(new Set());
  t.false(fleet.state.listens);
});

test('what is no message of ours is not taken, and named with its host and why; metrics count it', async (t) => {
  await using server = await NatsServer.start();
  const { batch } = await twoGuests();
  const a = await member(t, server, 'a', batch, 1_000);
  await connected(a);
  const stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  const good = { run: 'r', seq: 1, leaseMs: LEASE_MS, rests: false, classes: [] };
  const later = { ...JSON.parse(encode(good)), v: 2 };
  for (const [host, text] of [
    ['newer', JSON.stringify(later)],
    ['mad', '{'],
    ['long', ' '.repeat(100_000)],
    ['a', encode(good)],
    ['b', encode(good)],
    ['%s%n', encode(good)],
  ] as const)
    stranger.publish(`domsched.activity.${host}`, text);
  await stranger.flush();
  await until('all are heard', () => a.fleet.state.received === 6, 60_000, 20);
  t.deepEqual(a.fleet.status().refused, [
    { reason: 'another version', count: 1, last: 'newer' },
    { reason: 'not readable', count: 2, last: '%s%n' },
    { reason: 'too long', count: 1, last: 'long' },
    { reason: 'not from its host', count: 1, last: 'a' },
  ]);
  t.deepEqual(
    a.fleet.status().hosts.map(({ host }) => host),
    ['b'],
  );
  const metrics = new Metrics({ withoutOwn: true });
  metrics.tick(await a.host.tick());
  metrics.tick(await a.host.tick());
  const text = await metrics.text();
  for (const line of [
    'domsched_fleet_connected 1',
    'domsched_fleet_listens 1',
    'domsched_fleet_hosts{state="heard"} 1',
    'domsched_fleet_hosts{state="silent"} 0',
    'domsched_fleet_messages_total{direction="received"} 6',
    'domsched_fleet_refused_total{reason="another version"} 1',
    'domsched_fleet_refused_total{reason="not readable"} 2',
  ])
    t.true(text.includes(`\n${line}\n`), `${line}\n${text}`);
});

test('10,000 messages of a stranger on the server: nobody is held, and a real one is heard after them', async (t) => {
  await using server = await NatsServer.start();
  const hosts = await twoHosts(t, server);
  const { a, batch } = hosts;
  const stranger = await connect({ servers: server.url });
  t.teardown(() => stranger.close());
  const good = encode({ run: 'r', seq: 1, leaseMs: LEASE_MS, rests: false, classes: [] });
  let state = 7;
  const random = (most: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state % most;
  };
  for (let i = 0; i < 10_000; i++) {
    const bytes = Buffer.from(good);
    for (let n = random(8); n >= 0; n--) bytes[random(bytes.length)] = random(256);
    stranger.publish(`domsched.activity.x${random(100)}`, bytes.subarray(0, 1 + random(bytes.length + 20)));
    if (i % 500 === 0) await stranger.flush();
  }
  await stranger.flush();
  await until('all are heard', () => a.fleet.state.received >= 10_000, 60_000, 20);
  for (let i = 0; i < 3; i++) await a.host.tick();
  t.true(isQueued(batch, BACKUP));
  await heard(a, await works(hosts));
  await a.host.tick();
  t.false(isQueued(batch, BACKUP));
});
