import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import pino from 'pino';
import { ControlClient } from '../../../runtime/daemon/control-client.ts';
import { controlOperations } from '../../../runtime/daemon/control-operations.ts';
import type { EditAnswer, PsAnswer, ReleaseAllAnswer } from '../../../runtime/daemon/control-protocol.ts';
import { ControlServer } from '../../../runtime/daemon/control-server.ts';
import type { Entry } from '../../../runtime/policy/combine.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { FakeDaemon, fakeGuest, isQueued } from './fake-daemon.ts';

async function served() {
  const guest = await fakeGuest('one', { comm: 'pi', state: 'ready' }, { comm: 'pi2', state: 'ready' });
  const fake = await FakeDaemon.of([guest], { entries: [] });
  await fake.start();
  const file = path.join(fake.directory, 'control');
  const operations = controlOperations(fake.daemon, async () => {}, '1.2.3');
  const server = await ControlServer.listen(file, operations, pino({ level: 'silent' }));
  const client = (await ControlClient.connect(file))!;
  return {
    guest,
    fake,
    file,
    server,
    client,
    async [Symbol.asyncDispose]() {
      client.close();
      await server.close();
      await fake[Symbol.asyncDispose]();
    },
  };
}

test('the control socket: root alone, one daemon, and what was left behind by a dead one is no obstacle', async (t) => {
  await using bench = await served();
  const { file, server, client } = bench;
  t.is((await stat(file)).mode & 0o777, 0o600);
  await t.throwsAsync(ControlServer.listen(file, {}, pino({ level: 'silent' })), { code: 'refused' });
  client.close();
  await server.close();
  const script = `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 9))`;
  await once(spawn(process.execPath, ['-e', script]), 'exit');
  t.is(await ControlClient.connect(file), undefined);
  const again = await ControlServer.listen(file, {}, pino({ level: 'silent' }));
  await again.close();
});

test('of two daemons that start in one moment, one says that the other is there, and its end takes nothing away', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-two-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = path.join(directory, 'control');
  const both = await Promise.allSettled(
    [1, 2].map(() => ControlServer.listen(file, {}, pino({ level: 'silent' }))),
  );
  t.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  for (const one of both) {
    if (one.status === 'rejected') t.is(one.reason.code, 'refused');
    else await one.value.close();
  }
  const next = await ControlServer.listen(file, {}, pino({ level: 'silent' }));
  await next.close();
});

test('a socket that a dead daemon’s child holds open for a moment is no obstacle either', async (t) => {
  await using bench = await served();
  const { file, server, client } = bench;
  client.close();
  await server.close();
  // Nobody takes what comes; then the last who has the socket lets it go.
  const script = `
    const server = require('net').createServer(() => process.kill(process.pid, 9));
    server.listen(${JSON.stringify(file)}, () => console.log('there'));`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const again = await ControlServer.listen(file, {}, pino({ level: 'silent' }));
  await again.close();
  // Nothing but somebody who asked can have ended it.
  t.deepEqual(await ended, [null, 'SIGKILL']);
});

test('an operator’s hold lasts and his release too, whatever a policy says', async (t) => {
  await using bench = await served();
  const { guest, fake, client } = bench;
  const held = await client.request<EditAnswer>('hold', { domain: 'one', process: 'pi' });
  t.like(held, { domain: 'one', comm: 'pi', outcome: 'held', techniques: ['splice'] });
  await fake.tick();
  await fake.tick();
  t.false(isQueued(guest, 10), 'no policy asks for it, and it stays held');
  const { rows } = await client.request<PsAnswer>('ps', { domain: 'one' });
  t.is(rows.find(({ comm }) => comm === 'pi')!.state, 'held');
  const dry = await client.request<EditAnswer>('release', { domain: 'one', process: 'pi', dryRun: true });
  t.is(dry.outcome, 'planned');
  t.true(dry.planned.length > 0);
  t.false(isQueued(guest, 10));
  const all = await client.request<ReleaseAllAnswer>('releaseAll');
  t.is(all.released.length, 1);
  t.true(isQueued(guest, 10));
  fake.daemon.reload(fake.settings([HOLD_EVERYTHING]));
  await client.request('release', { domain: 'one', process: 'pi2' });
  await fake.tick();
  await fake.tick();
  t.false(isQueued(guest, 10), 'a reload forgets who was let go before');
  t.true(isQueued(guest, 11));
  const reniced = await client.request<EditAnswer>('renice', { domain: 'one', process: 'pi2', nice: 5 });
  t.is(reniced.outcome, 'reniced');
});

const HOLD_EVERYTHING: Entry = {
  name: 'all',
  select: ({ comm }) => comm.startsWith('pi'),
  windows: [],
  limit: undefined,
  policy: ({ subjects }) => ({
    actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'all' })),
  }),
};

test('wrong requests are answered, not obeyed; a flood and a binary one harm nobody', async (t) => {
  await using bench = await served();
  const { file, client } = bench;
  await t.throwsAsync(client.request('magic'), { code: 'usage' });
  await t.throwsAsync(client.request('toString'), { code: 'usage' });
  await t.throwsAsync(client.request('hold', { domain: 3 }), { code: 'usage' });
  await t.throwsAsync(client.request('hold', { domain: 'two', process: 'pi' }), { code: 'domain-not-found' });
  await t.throwsAsync(client.request('hold', { domain: 'one', process: 'nobody' }), {
    code: 'process-not-found',
  });
  await t.throwsAsync(client.request('hold', { domain: 'one', process: '1' }), { code: 'refused' });
  await t.throwsAsync(client.request('renice', { domain: 'one', process: 'pi', nice: 77 }), {
    code: 'usage',
  });
  const raw = createConnection(file);
  raw.on('error', () => undefined);
  raw.write(`${'x'.repeat(10)}\n{"id":1}\n[]\n`);
  const [first] = (await once(raw, 'data')) as [Buffer];
  t.regex(first.toString(), /^\{"id":null,"error":\{"code":"usage"/);
  raw.write('y'.repeat(200_000));
  await new Promise((resolve) => raw.once('close', resolve));
  const status = await client.request<{ version: string; domains: object[] }>('status');
  t.like(status, { version: '1.2.3', pid: process.pid });
  t.is(status.domains.length, 1);
});

test('watch: every tick until the client leaves', async (t) => {
  await using bench = await served();
  const { fake, server, client } = bench;
  const seen: Tick[] = [];
  const watching = client.watch((report) => seen.push(report));
  // The server has the request when it answers the next one.
  await client.request('status');
  for (let i = 0; i < 3; i++) server.tick(await fake.tick());
  await client.request('status');
  t.deepEqual(
    seen.map(({ tick }) => tick),
    [4, 5, 6],
  );
  t.deepEqual(seen.at(-1), JSON.parse(JSON.stringify(fake.reports.at(-1))));
  client.close();
  await watching;
});
