import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import pino from 'pino';
import { createMessageConnection, StreamMessageReader, StreamMessageWriter } from 'vscode-jsonrpc/node';
import { openDaemon } from '../../../runtime/control/open.ts';
import { ControlServer } from '../../../runtime/control/server.ts';
import { Operator } from '../../../runtime/daemon/operator.ts';
import type { PlacedPolicy } from '../../../runtime/policy/combine.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { FakeDaemon, fakeGuest, isQueued } from '../daemon/fake-daemon.ts';

async function served() {
  const guest = await fakeGuest('one', { comm: 'pi', state: 'ready' }, { comm: 'pi2', state: 'ready' });
  const fake = await FakeDaemon.of([guest], { entries: [] });
  await fake.start();
  const file = path.join(fake.directory, 'control');
  const serves = (connect: readonly string[]) => new Operator(fake.daemon, async () => {}, '1.2.3', connect);
  const server = await ControlServer.listen(file, serves, pino({ level: 'silent' }));
  const client = (await openDaemon([], file))!;
  return {
    guest,
    fake,
    file,
    server,
    client,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await server.close();
      await fake[Symbol.asyncDispose]();
    },
  };
}

const nobody = () => {
  throw new Error('nobody asks');
};

test('the control socket: root alone, one daemon, and what was left behind by a dead one is no obstacle', async (t) => {
  await using bench = await served();
  const { file, server, client } = bench;
  t.is((await stat(file)).mode & 0o777, 0o600);
  await t.throwsAsync(ControlServer.listen(file, nobody, pino({ level: 'silent' })), { code: 'refused' });
  await client[Symbol.asyncDispose]();
  await server.close();
  const script = `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 9))`;
  await once(spawn(process.execPath, ['-e', script]), 'exit');
  t.is(await openDaemon([], file), undefined);
  const again = await ControlServer.listen(file, nobody, pino({ level: 'silent' }));
  await again.close();
});

test('of two daemons that start in one moment, one says that the other is there, and its end takes nothing away', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-two-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = path.join(directory, 'control');
  const both = await Promise.allSettled(
    [1, 2].map(() => ControlServer.listen(file, nobody, pino({ level: 'silent' }))),
  );
  t.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  for (const one of both) {
    if (one.status === 'rejected') t.is(one.reason.code, 'refused');
    else await one.value.close();
  }
  const next = await ControlServer.listen(file, nobody, pino({ level: 'silent' }));
  await next.close();
});

test('a socket that a dead daemon’s child holds open for a moment is no obstacle either', async (t) => {
  await using bench = await served();
  const { file, server, client } = bench;
  await client[Symbol.asyncDispose]();
  await server.close();
  // Nobody takes what comes; then the last who has the socket lets it go.
  const script = `
    const server = require('net').createServer(() => process.kill(process.pid, 9));
    server.listen(${JSON.stringify(file)}, () => console.log('there'));`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const again = await ControlServer.listen(file, nobody, pino({ level: 'silent' }));
  await again.close();
  // Nothing but somebody who asked can have ended it.
  t.deepEqual(await ended, [null, 'SIGKILL']);
});

test('an operator’s hold lasts and his release too, whatever a policy says', async (t) => {
  await using bench = await served();
  const { guest, fake, client } = bench;
  const held = await client.hold({ domain: 'one', process: 'pi' });
  t.like(held, { domain: 'one', comm: 'pi', outcome: 'held', techniques: ['splice'] });
  await fake.tick();
  await fake.tick();
  t.false(isQueued(guest, 10), 'no policy asks for it, and it stays held');
  const { rows } = await client.ps({ domain: 'one' });
  t.is(rows.find(({ comm }) => comm === 'pi')!.state, 'held');
  const dry = await client.release({ domain: 'one', process: 'pi', dryRun: true });
  t.is(dry.outcome, 'planned');
  t.true(dry.planned.length > 0);
  t.false(isQueued(guest, 10));
  const all = await client.releaseAll();
  t.is(all.released.length, 1);
  t.true(isQueued(guest, 10));
  fake.daemon.reload(fake.settings([HOLD_EVERYTHING]));
  await client.release({ domain: 'one', process: 'pi2' });
  await fake.tick();
  await fake.tick();
  t.false(isQueued(guest, 10), 'a reload forgets who was let go before');
  t.true(isQueued(guest, 11));
  const reniced = await client.renice({ domain: 'one', process: 'pi2', nice: 5 });
  t.is(reniced.outcome, 'reniced');
});

test('a held process whose end an operator’s look sees first leaves no record behind', async (t) => {
  await using bench = await served();
  const { guest, fake, client } = bench;
  await client.hold({ domain: 'one', process: 'pi' });
  t.deepEqual(await fake.held(), ['pi']);
  const node = guest.offset('task_struct', 'tasks');
  guest.ring(guest.initTask + node, guest.tasks.get(1)! + node, guest.tasks.get(11)! + node);
  await client.renice({ domain: 'one', process: 'pi2', nice: 5 });
  await fake.tick();
  t.deepEqual(await fake.held(), []);
});

const HOLD_EVERYTHING: PlacedPolicy = {
  name: 'all',
  select: ({ comm }) => comm.startsWith('pi'),
  windows: [],
  limit: undefined,
  policy: ({ subjects }) => ({
    actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'all' })),
  }),
};

test('wrong requests are answered, not obeyed; what is no request ends the connection and harms nobody', async (t) => {
  await using bench = await served();
  const { file, client, guest } = bench;
  const raw = async () => {
    const socket = createConnection(file);
    const closed = new Promise((resolve) => socket.on('error', () => undefined).on('close', resolve));
    await once(socket, 'connect');
    return { socket, closed };
  };
  const { socket } = await raw();
  const rpc = createMessageConnection(new StreamMessageReader(socket), new StreamMessageWriter(socket));
  rpc.listen();
  for (const method of ['magic', 'toString', '__proto__'])
    await t.throwsAsync(rpc.sendRequest(method, {}), { message: /^Unhandled method/ });
  for (const options of [
    { domain: 3, process: 'pi' },
    { domain: 'one', process: 'pi', dryrun: true },
    { domain: 'one', process: 'pi', connect: 'qemu:' },
    ['one', 'pi'],
    undefined,
  ]) {
    const error = await t.throwsAsync(rpc.sendRequest('hold', options));
    t.like(error, { data: { code: 'usage' } });
  }
  t.true(isQueued(guest, 10), 'a misspelt dry run is no hold');
  rpc.dispose();
  socket.destroy();
  await t.throwsAsync(client.hold({ domain: 'two', process: 'pi' }), { code: 'domain-not-found' });
  await t.throwsAsync(client.hold({ domain: 'one', process: 'nobody' }), { code: 'process-not-found' });
  await t.throwsAsync(client.hold({ domain: 'one', process: '1' }), { code: 'refused' });
  await t.throwsAsync(client.renice({ domain: 'one', process: 'pi', nice: 77 }), { code: 'usage' });
  const message = (body: string, length: number | string = body.length) =>
    `Content-Length: ${length}\r\n\r\n${body}`;
  for (const bytes of [
    'no header at all\r\n\r\n',
    message('x'.repeat(10)),
    message('{}', 'many'),
    message('{}', -5),
    message('{"jsonrpc":"2.0","method":"$/cancelRequest"}'),
    // A flood: of a header, of a body, of a body that was promised to be longer still.
    'y'.repeat(400_000),
    message(`"${'y'.repeat(400_000)}"`),
    message('y'.repeat(400_000), 2 ** 40),
  ]) {
    const hostile = await raw();
    hostile.socket.write(bytes);
    await hostile.closed;
  }
  const unfinished = await raw();
  unfinished.socket.write(message('[', 5));
  for (const odd of ['null', '[]', '5', '{"id":{}}', '{"jsonrpc":"2.0","id":7,"result":1}'])
    unfinished.socket.write(message(odd));
  const status = await client.status();
  t.like(status, { version: '1.2.3', pid: process.pid });
  t.is(status.domains.length, 1);
  unfinished.socket.destroy();
});

test('ticks: every one until the client has seen enough; whoever does not read keeps nobody waiting', async (t) => {
  await using bench = await served();
  const { fake, file, server, client } = bench;
  const idle = createConnection(file);
  const rpc = createMessageConnection(new StreamMessageReader(idle), new StreamMessageWriter(idle));
  rpc.listen();
  await rpc.sendRequest('watch');
  idle.pause();
  const stop = new AbortController();
  const seen: Tick[] = [];
  const watching = (async () => {
    for await (const tick of client.ticks({ signal: stop.signal, intervalMs: 0 })) {
      seen.push(tick);
      if (seen.length === 3) stop.abort();
    }
  })();
  // The server has the request when it answers the next one.
  await client.status();
  for (let i = 0; i < 3; i++) server.tick(await fake.tick());
  await watching;
  t.deepEqual(
    seen.map(({ tick }) => tick),
    [4, 5, 6],
  );
  t.deepEqual(seen.at(-1), JSON.parse(JSON.stringify(fake.ticks.at(-1))));
  const large = { ...fake.ticks.at(-1)!, time: 'x'.repeat(1_000_000) };
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 300; i++) {
    server.tick(large);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.true(
    process.memoryUsage().arrayBuffers - before < 100e6,
    'ticks for one who does not read do not heap up',
  );
  rpc.dispose();
  idle.destroy();
  const next = client.ticks({ signal: new AbortController().signal, intervalMs: 0 });
  const ended = (async () => {
    for await (const _ of next);
  })();
  await client.status();
  await server.close();
  await t.throwsAsync(ended, { code: 'host-unreachable' });
  await t.throwsAsync(client.status(), { code: 'host-unreachable' });
});

test('the accounts of a daemon’s domains and of its host come over the socket', async (t) => {
  await using bench = await served();
  bench.guest.domain.times = [{ ranNs: 5, waitedNs: 6, cpu: 1 }];
  const { domains, threads, ms } = await bench.client.accounts();
  t.true(ms > 0);
  t.true(threads.some(({ pid, ranNs }) => pid === process.pid && ranNs > 0));
  t.is(domains.length, 1);
  t.like(domains[0], { name: 'one', cpus: [0] });
  t.deepEqual(domains[0]!.vcpus, [{ vcpu: 0, ranNs: 5, waitedNs: 6, cpu: 1 }]);
  t.true(domains[0]!.threads.some(({ comm, ready }) => comm === 'pi' && ready));
});
