import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { MOST_REQUESTS } from '../../../runtime/broker/protocol.ts';
import { serve } from '../../../runtime/broker/serve.ts';
import { brokerOver, scratch } from './bench.ts';

/** Far more than the kernel keeps of a connection (net.core.wmem_max) and than a reader may ask for at once. */
const MANY_LINES = 100_000;

/** A broker with one machine, paused, that serves the reader at the other end. */
async function served(t: ExecutionContext, queue?: Parameters<typeof serve>[2]) {
  const directory = await scratch(t);
  const bench = brokerOver(directory);
  await bench.open();
  await bench.ask({ op: 'pause', machine: 1, use: 'edit' });
  const file = path.join(directory, 'socket');
  const server = createServer().listen(file);
  await once(server, 'listening');
  const reader = createConnection(file);
  const [socket] = (await once(server, 'connection')) as [Socket];
  t.teardown(() => {
    reader.destroy();
    server.close();
  });
  let ended = false;
  const end = serve(bench.broker, socket, queue).then(() => {
    ended = true;
  });
  return { ...bench, reader, end, socket, hasEnded: () => ended };
}

const bounds = [
  ['', undefined],
  [': by their bytes', { lines: Number.POSITIVE_INFINITY, bytes: 10_000 }],
  [': by their number', { lines: 100, bytes: Number.POSITIVE_INFINITY }],
] as const;
for (const [which, queue] of bounds) {
  test(`a reader that asks on and takes no answer is left, and its machines are let go${which}`, async (t) => {
    const { reader, domain, end, socket, hasEnded } = await served(t, queue);
    reader.pause();
    reader.on('error', () => undefined);
    let most = 0;
    for (let id = 0; id < MANY_LINES && !hasEnded(); id++) {
      most = Math.max(most, socket.writableLength);
      if (!reader.write(`${JSON.stringify({ id, op: 'list', host: 0 })}\n`)) await nextTurn();
    }
    t.true(hasEnded(), 'it was left before all was asked');
    await end;
    t.true(most < 2 * MOST_REQUESTS * 100, `${most} bytes waited`);
    t.is(await domain.state(), 'running');
  });
}

test('one that takes its answers late gets all of them', async (t) => {
  const { reader, domain, hasEnded } = await served(t);
  reader.pause();
  for (let id = 0; id < MOST_REQUESTS; id++) reader.write(`${JSON.stringify({ id, op: 'list', host: 0 })}\n`);
  await nextTurn();
  let text = '';
  reader.on('data', (chunk) => {
    text += String(chunk);
  });
  reader.resume();
  while (text.split('\n').length <= MOST_REQUESTS) await once(reader, 'data');
  const ids = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).id as number);
  t.deepEqual(
    ids.sort((a, b) => a - b),
    Array.from({ length: MOST_REQUESTS }, (_, i) => i),
  );
  t.false(hasEnded());
  t.is(await domain.state(), 'paused');
});
