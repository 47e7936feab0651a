/** A broker over a QEMU that this process plays, by its QMP socket. */
import { chmodSync, readFileSync } from 'node:fs';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { SILENCE_MS } from '../../../runtime/broker/broker.ts';
import { LONGEST_PAUSE_MS } from '../../../runtime/broker/pause-budget.ts';
import { machinesOf } from '../../../runtime/broker/places.ts';
import { hostProcess } from '../../../runtime/host-process.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';
import { watchdog } from '../../../runtime/hypervisor/qemu/watchdog.ts';
import { FakeQemu, memoryMap } from '../hypervisor/fake-qemu.ts';
import { HELD } from '../surgeon/held-record.ts';
import { askerOf, journalsIn, scratch } from './bench.ts';

process.env.DOMSCHED_RUNTIME_DIR = await scratch({ teardown: (end) => test.after.always(() => end()) });
test.after.always(() => watchdog.close());

const WORD = { frame: 1, offset: 8, old: '0000000000000000', new: '1122334455667788' };
const EDIT = { op: 'edit', machine: 1, title: 'hold', words: [WORD], still: [] };

async function brokered(t: ExecutionContext, now?: () => number, opens = true) {
  const qemu = await FakeQemu.start();
  const connection = `qemu:unix:${qemu.sockets.qmp}`;
  const places = machinesOf([connection]);
  const { broker, ask } = askerOf(places, journalsIn(await scratch(t)), now);
  t.teardown(async () => {
    await broker.close();
    await qemu[Symbol.asyncDispose]();
  });
  const open = () => ask({ op: 'open', host: 0, domain: qemu.sockets.qmp });
  if (opens) {
    t.is((await open()).error, undefined);
    t.like((await ask({ op: 'place', machine: 1 })).value, { recovery: 'nothing', endsWithUs: false });
  }
  qemu.commands.length = 0;
  const word = () => readFileSync(qemu.file).toString('hex', FRAME_SIZE + 8, FRAME_SIZE + 16);
  return { qemu, connection, broker, ask, open, word };
}

test('its RAM is where QEMU and the kernel say, and its registers are passed on as they came', async (t) => {
  const { qemu, ask } = await brokered(t);
  const { value } = await ask({ op: 'changes', machine: 1, ram: -1 });
  const places = [{ first: 0, count: 256, address: qemu.mapping.address }];
  t.deepEqual(value, { resets: 0, ram: { version: 0, physicalBits: 40, places } });
  t.deepEqual((await ask({ op: 'changes', machine: 1, ram: 0 })).value, { resets: 0, ram: null });
  t.regex((await ask({ op: 'registers', machine: 1 })).value as string, /CPU#0[\s\S]*RIP=/);
});

test('an edit is written in a pause by stop, and the machine goes on by cont', async (t) => {
  const { qemu, ask, word } = await brokered(t);
  t.is((await ask(EDIT)).error?.code, 'edit-conflict', 'no pause');
  t.like((await ask({ op: 'pause', machine: 1, use: 'edit' })).value, { foundPaused: false });
  t.is(qemu.status, 'paused');
  t.is((await ask(EDIT)).value, null, 'of any kind: the pause outlives us if it has to');
  t.is(word(), WORD.new);
  await ask({ op: 'resume', machine: 1 });
  t.is(qemu.status, 'running');
});

test('a machine that somebody else resumes, resets or moves meanwhile is not written', async (t) => {
  const happenings: Record<string, (qemu: FakeQemu) => void> = {
    resumed: (qemu) => qemu.cont(),
    reset: (qemu) => qemu.event('RESET'),
    moved: (qemu) => {
      qemu.migration = { status: 'active' };
    },
  };
  for (const [what, happens] of Object.entries(happenings)) {
    const { qemu, ask, word } = await brokered(t);
    await ask({ op: 'pause', machine: 1, use: 'edit' });
    happens(qemu);
    const { error } = await ask(EDIT);
    t.is(error?.code, what === 'moved' ? 'refused' : 'edit-conflict', what);
    t.is(word(), WORD.old, what);
  }
});

test('one that was found paused stays paused, whatever becomes of the reader; nor is that counted as ours', async (t) => {
  let now = 0;
  const { qemu, ask, broker } = await brokered(t, () => now);
  qemu.stop();
  for (let i = 0; i < 3; i++) {
    t.like((await ask({ op: 'pause', machine: 1, use: 'edit' })).value, { foundPaused: true });
    now += LONGEST_PAUSE_MS;
    await ask({ op: 'resume', machine: 1 });
  }
  t.like((await ask({ op: 'pause', machine: 1, use: 'edit' })).value, { foundPaused: true });
  t.is((await ask(EDIT)).value, null);
  await broker.close();
  t.is(qemu.status, 'paused');
});

test('a reader that hangs or ends leaves no machine paused, and QEMU to others', async (t) => {
  let now = 0;
  const { qemu, ask, broker } = await brokered(t, () => now);
  await ask({ op: 'pause', machine: 1, use: 'edit' });
  now += SILENCE_MS;
  await broker.endSilent();
  t.is(qemu.status, 'running');
  t.is((await ask(EDIT)).error?.code, 'edit-conflict');
  await ask({ op: 'pause', machine: 1, use: 'edit' });
  await broker.close();
  t.is(qemu.status, 'running');
});

test('a reset is told, and where RAM is then', async (t) => {
  const { qemu, ask } = await brokered(t);
  qemu.memory = { ...qemu.memory, mtree: memoryMap([0, FRAME_SIZE * 8]) };
  qemu.event('RESET');
  // Its answers come after the event; the map is asked for when the event was heard.
  for (let i = 0; i < 100; i++) {
    await ask({ op: 'state', machine: 1 });
    const { value } = await ask({ op: 'changes', machine: 1, ram: 0 });
    const { resets, ram } = value as { resets: number; ram: { places: { count: number }[] } | null };
    if (ram === null) continue;
    t.is(resets, 1);
    t.deepEqual(
      ram.places.map(({ count }) => count),
      [8],
    );
    return;
  }
  t.fail('the map is never told');
});

test('sockets that are not meant, or that the reader could use itself, are not opened', async (t) => {
  const { qemu, ask, open } = await brokered(t, undefined, false);
  await using other = await FakeQemu.start();
  t.is((await ask({ op: 'open', host: 0, domain: other.sockets.qmp })).error?.code, 'domain-not-found');
  t.is((await ask({ op: 'open', host: 1, domain: qemu.sockets.qmp })).error?.code, 'domain-not-found');
  t.is((await ask({ op: 'open', host: 0, domain: `pid:${process.pid}` })).error?.code, 'domain-not-found');
  chmodSync(qemu.sockets.qmp, 0o777);
  t.is((await open()).error?.code, 'refused');
  t.deepEqual([...qemu.commands, ...other.commands], [], 'nobody was asked anything');
  chmodSync(qemu.sockets.qmp, 0o755);
  t.is((await open()).error, undefined);
  t.is((await open()).error?.code, 'refused', 'it is open already');
  const where = { blocks: [{ start: 4096, length: 4096 }], low: 4096 };
  t.is((await ask({ op: 'place', machine: 1, where })).error?.code, 'refused', 'its RAM is not elsewhere');
});

test('its machine is not opened by its process as well', async (t) => {
  await using qemu = await FakeQemu.start();
  const [, byProcess] = machinesOf([`qemu:unix:${qemu.sockets.qmp}`, 'pid:']);
  await t.throwsAsync(byProcess!.open(`pid:${process.pid}`), { code: 'domain-not-found' } as never);
});

test('a list tells of it, and of one that does not answer why', async (t) => {
  const { qemu, connection, ask } = await brokered(t, undefined, false);
  const all = await Promise.all(Array.from({ length: 4 }, () => ask({ op: 'list', host: 0 })));
  for (const { value } of all) {
    t.like(value, [{ identity: { id: qemu.sockets.qmp, connection, name: 'fake' }, state: 'running' }]);
  }
  t.is(qemu.commands.filter((command) => command === 'query-name').length, 1, 'asked once for all');
  const places = machinesOf(['qemu:unix:/nowhere/x.sock']);
  const away = askerOf(places, journalsIn(await scratch(t)));
  t.like((await away.ask({ op: 'list', host: 0 })).value, [{ failure: { code: 'host-unreachable' } }]);
});

test('records are of a machine that is open; forgotten are those that may have been of one', async (t) => {
  const { qemu, connection, ask } = await brokered(t);
  const { pid, started } = hostProcess(process.pid)!;
  const domain = qemu.sockets.qmp;
  const record = { ...HELD, connection, domain, name: 'fake', machine: { pid, started } };
  const say = (op: 'record' | 'forget', change: object = {}) =>
    ask({ op, journal: 'held', record: { ...record, ...change } });
  t.is((await say('record', { connection: `${connection},qtest=unix:/x` })).error?.code, 'refused');
  t.is((await say('record', { domain: '/etc/x.sock' })).error?.code, 'refused');
  t.is((await say('record', { machine: { pid: 1, started: 1 } })).error?.code, 'refused');
  t.is((await say('record')).value, null);
  await ask({ op: 'close', machine: 1 });
  t.is(
    (await say('forget', { domain: '/etc/x.sock', connection: 'qemu:unix:/etc/x.sock' })).error?.code,
    'refused',
  );
  t.is((await say('forget')).value, null);
  t.deepEqual((await ask({ op: 'records', journal: 'held' })).value, []);
});
