import { readdirSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { SILENCE_MS } from '../../../runtime/broker/broker.ts';
import { BURST_MS, LONGEST_PAUSE_MS, PAUSED_PART } from '../../../runtime/broker/pause-budget.ts';
import { MOST_REQUESTS, MOST_WORDS } from '../../../runtime/broker/protocol.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { HELD } from '../surgeon/held-record.ts';
import { brokerOver, FRAMES, machineProcess, scratch } from './bench.ts';

const OLD = '0000000000000000';
const NEW = '1122334455667788';

const word = (change: object = {}) => ({ frame: 1, offset: 8, old: OLD, new: NEW, ...change });
const edit = (change: object = {}) => ({
  op: 'edit',
  machine: 1,
  title: 'hold',
  words: [word()],
  still: [],
  ...change,
});

async function paused(t: ExecutionContext, now?: () => number) {
  const directory = await scratch(t);
  const bench = brokerOver(directory, now);
  await bench.open();
  t.deepEqual(await bench.ask({ op: 'pause', machine: 1, use: 'edit' }), {
    id: 3,
    value: { foundPaused: false, heard: null },
  } as never);
  return { ...bench, directory };
}

test('an edit is recorded before its first byte, written whole, and its record is removed', async (t) => {
  const { ask, domain, directory } = await paused(t);
  const records: number[] = [];
  domain.recorder.onCall(({ kind }) => {
    const found = readdirSync(path.join(directory, 'edits')).filter((name) => name.endsWith('.json'));
    if (kind === 'write') records.push(found.length);
  });
  const words = [word(), word({ frame: 3, offset: 4092, old: '00000000', new: 'aabbccdd' })];
  t.is((await ask(edit({ words }))).value, null);
  t.is(Buffer.from(domain.image.load(4096 + 8, 8)).toString('hex'), NEW);
  t.is(Buffer.from(domain.image.load(4 * 4096 - 4, 4)).toString('hex'), 'aabbccdd');
  t.deepEqual(records, [1, 1]);
  t.deepEqual(readdirSync(path.join(directory, 'edits')), []);
  t.is(await domain.state(), 'paused');
  await ask({ op: 'resume', machine: 1 });
  t.is(await domain.state(), 'running');
});

const many = Array.from({ length: MOST_WORDS + 1 }, (_, i) =>
  word({ frame: Math.floor(i / 512), offset: 8 * (i % 512) }),
);
const refusals: readonly [string, object, string][] = [
  ['another old word', { words: [word({ old: NEW, new: OLD })] }, 'edit-conflict'],
  [
    'another old word behind a right one',
    { words: [word(), word({ offset: 16, old: NEW })] },
    'edit-conflict',
  ],
  ['outside of RAM', { words: [word({ frame: FRAMES })] }, 'frame-unmapped'],
  ['outside of RAM behind a right one', { words: [word(), word({ frame: 2 ** 39 })] }, 'frame-unmapped'],
  ['no frame', { words: [word({ frame: 2 ** 40 })] }, 'protocol'],
  ['no whole frame', { words: [word({ frame: 1.5 })] }, 'protocol'],
  ['no word', { words: [] }, 'protocol'],
  ['too many words', { words: many }, 'protocol'],
  ['a long word', { words: [word({ old: `${OLD}${OLD}`, new: `${NEW}${NEW}` })] }, 'protocol'],
  ['words of two sizes', { words: [word({ new: '11' })] }, 'protocol'],
  ['a word that is not aligned', { words: [word({ offset: 12 })] }, 'protocol'],
  ['a word across two frames', { words: [word({ offset: 4092 })] }, 'protocol'],
  ['words that overlap', { words: [word(), word({ offset: 12, old: '00', new: '01' })] }, 'refused'],
  ['a machine that is not open', { machine: 2 }, 'domain-not-found'],
  ['a key that it does not know', { force: true }, 'protocol'],
  ['a long title', { title: 'x'.repeat(257) }, 'protocol'],
];
for (const [what, change, code] of refusals) {
  test(`refused, and nothing is written: ${what}`, async (t) => {
    const { ask, domain } = await paused(t);
    t.is((await ask(edit(change))).error?.code, code);
    t.is(domain.recorder.count('write'), 0);
    t.is((await ask(edit())).value, null, 'the right one is made');
  });
}

test('without a pause, or in that of a look, nothing is written', async (t) => {
  const { ask, domain, open } = brokerOver(await scratch(t));
  await open();
  t.is((await ask(edit())).error?.code, 'edit-conflict');
  await ask({ op: 'pause', machine: 1, use: 'look' });
  t.is((await ask(edit())).error?.code, 'edit-conflict');
  t.is(domain.recorder.count('write'), 0);
});

test('an edit that fails at any word is taken back', async (t) => {
  for (let n = 1; n <= 3; n++) {
    const { ask, domain, directory } = await paused(t);
    domain.recorder.failNth(n, () => new DomschedError('memory-fault', 'no', {}), ['write']);
    const words = [8, 16, 24].map((offset) => word({ offset }));
    const { error } = await ask(edit({ words }));
    t.is(error?.code, 'edit-failed');
    t.is(error?.details.restored, true);
    t.deepEqual(domain.image.load(4096, 64), new Uint8Array(64));
    t.deepEqual(readdirSync(path.join(directory, 'edits')), []);
  }
});

test('a machine that goes on in the middle is not written', async (t) => {
  const { ask, domain } = await paused(t);
  domain.recorder.onCall(({ kind }) => {
    if (kind === 'prove') throw new DomschedError('edit-conflict', 'it runs', {});
  });
  t.is((await ask(edit())).error?.code, 'edit-conflict');
  t.is(domain.recorder.count('write'), 0);
});

test('a reader that is silent in a pause has it ended, and may not write in it later', async (t) => {
  let now = 0;
  const { ask, broker, domain } = await paused(t, () => now);
  now = SILENCE_MS - 1;
  await broker.endSilent();
  t.is(await domain.state(), 'paused');
  await ask({ op: 'prove', machine: 1 });
  now += SILENCE_MS - 1;
  await broker.endSilent();
  t.is(await domain.state(), 'paused', 'it asked meanwhile');
  now += 1;
  await broker.endSilent();
  t.is(await domain.state(), 'running');
  t.is((await ask(edit())).error?.code, 'edit-conflict');
  t.is(domain.recorder.count('write'), 0);
});

test('no pause is longer than it may be, whatever is asked for in it', async (t) => {
  let now = 0;
  const { ask, broker, domain } = await paused(t, () => now);
  for (; now < LONGEST_PAUSE_MS; now += SILENCE_MS / 2) {
    await ask({ op: 'state', machine: 1 });
    await broker.endSilent();
    t.is(await domain.state(), 'paused');
  }
  await ask({ op: 'state', machine: 1 });
  await broker.endSilent();
  t.is(await domain.state(), 'running');
});

test('nor is it while requests wait all the time; what waits is done first', async (t) => {
  let now = 0;
  const { ask, broker, domain } = await paused(t, () => now);
  now = LONGEST_PAUSE_MS;
  const waiting = [ask(edit()), ask({ op: 'prove', machine: 1 })];
  await broker.endSilent();
  t.is(await domain.state(), 'running');
  t.deepEqual(
    (await Promise.all(waiting)).map(({ error }) => error?.code),
    [undefined, undefined],
  );
  t.is(Buffer.from(domain.image.load(4096 + 8, 8)).toString('hex'), NEW);
  // A pause that began since, once the machine has run on, is another one.
  now += LONGEST_PAUSE_MS;
  t.is((await ask({ op: 'pause', machine: 1, use: 'edit' })).error, undefined);
  await broker.endSilent();
  t.is(await domain.state(), 'paused');
});

test('who pauses a machine again and again has it run on first, also when it was opened anew', async (t) => {
  let now = 0;
  const { ask, broker, domain } = await paused(t, () => now);
  const id = `pid:${process.pid}`;
  now += LONGEST_PAUSE_MS;
  await broker.endSilent();
  t.is(await domain.state(), 'running');
  for (let machine = 1; machine < 3; machine++) {
    const { error } = await ask({ op: 'pause', machine, use: 'look' });
    t.is(error?.code, 'timeout');
    t.true(error?.details.again);
    t.is(await domain.state(), 'running');
    await ask({ op: 'close', machine });
    await ask({ op: 'open', host: 0, domain: id });
    const where = { blocks: [{ start: 4096, length: 4096 }], low: 4096 };
    t.is((await ask({ op: 'place', machine: machine + 1, where })).error, undefined);
  }
  const wait = (LONGEST_PAUSE_MS * (1 - PAUSED_PART) - BURST_MS) / PAUSED_PART;
  now += wait - 1;
  t.is((await ask({ op: 'pause', machine: 3, use: 'look' })).error?.details.waitMs, 1);
  now += 1;
  t.is((await ask({ op: 'pause', machine: 3, use: 'look' })).error, undefined);
});

test('the end of the reader ends its pauses, after what is being done', async (t) => {
  const { ask, broker, domain } = await paused(t);
  const last = ask(edit());
  await broker.close();
  t.is((await last).value, null);
  t.is(Buffer.from(domain.image.load(4096 + 8, 8)).toString('hex'), NEW);
  t.is(domain.recorder.count('resume'), 1);
  t.is((await ask({ op: 'pause', machine: 1, use: 'edit' })).error?.code, 'domain-not-found');
});

test('one pause, one place: neither is made twice', async (t) => {
  const { ask } = await paused(t);
  t.is((await ask({ op: 'pause', machine: 1, use: 'edit' })).error?.code, 'refused');
  const place = { op: 'place', machine: 1, where: { blocks: [{ start: 0, length: 1 }], low: 1 } };
  t.is((await ask(place)).error?.code, 'refused');
});

test('what is no request has an answer that says so', async (t) => {
  const { broker, domain } = await paused(t);
  for (const line of [
    '',
    '{',
    '[]',
    'null',
    '{"id":-1}',
    '{"id":1,"op":"exec"}',
    '{"id":1,"op":"pause","machine":"1"}',
  ]) {
    const { error } = JSON.parse(await broker.answer(line));
    t.is(error.code, 'protocol', line);
  }
  t.is(await domain.state(), 'paused');
});

test('too many requests at once are refused', async (t) => {
  const { ask } = await paused(t);
  const all = Array.from({ length: MOST_REQUESTS + 1 }, () => ask({ op: 'state', machine: 1 }));
  const refused = (await Promise.all(all)).filter(({ error }) => error !== undefined);
  t.deepEqual(
    refused.map(({ error }) => error!.code),
    ['protocol'],
  );
});

const id = `pid:${process.pid}`;
const record = {
  ...HELD,
  connection: id,
  domain: id,
  name: 'one',
  machine: { pid: process.pid, started: machineProcess.started },
};

test('records are of a machine that is open, and of no other place that root would go to', async (t) => {
  const { ask } = await paused(t);
  const add = (change: object, journal = 'held') =>
    ask({ op: 'record', journal, record: { ...record, ...change } });
  const share = {
    kind: 'share',
    connection: id,
    domain: id,
    name: 'one',
    hypervisorPid: null,
    before: {},
    set: {},
  };
  t.is((await add({ connection: 'dump:/etc/shadow' })).error?.code, 'refused');
  t.is((await add({ connection: 'qemu:unix:/tmp/x', domain: 'qemu:unix:/tmp/x' })).error?.code, 'refused');
  t.is((await add({ machine: undefined })).error?.code, 'refused');
  t.is((await add({ machine: { pid: 1, started: 0 } })).error?.code, 'refused');
  t.is((await add({ name: 'two' })).error?.code, 'refused');
  t.is((await add({}, 'changed')).error?.code, 'refused', 'of another kind');
  t.is((await ask({ op: 'record', journal: 'changed', record: share })).error?.code, 'refused');
  t.deepEqual((await ask({ op: 'records', journal: 'held' })).value, []);
  t.is((await add({})).value, null);
  t.deepEqual((await ask({ op: 'records', journal: 'held' })).value, [record]);
  t.is((await ask({ op: 'forget', journal: 'held', record })).value, null);
  t.deepEqual((await ask({ op: 'records', journal: 'held' })).value, []);
});
