import { mkdtemp, open, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { openTrace } from '../../../runtime/trace/read.ts';
import { TraceRecorder } from '../../../runtime/trace/recorder.ts';
import type { TraceHandle } from '../../../runtime/trace/trace-file.ts';
import { until } from '../../live/until.ts';
import { backupStory, sampleDomain, sampleProcess, sampleTick } from '../sample-ticks.ts';

async function folder(t: ExecutionContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'trace-'));
  t.teardown(() => rm(made, { recursive: true, force: true }));
  return made;
}

async function record(file: string, ticks: Iterable<Tick>, maxBytes?: number): Promise<void> {
  const recorder = await TraceRecorder.create({ file, source: 'daemon', ...(maxBytes && { maxBytes }) });
  for (const tick of ticks) recorder.tick(tick);
  await recorder.close();
}

async function read(file: string): Promise<Tick[]> {
  const found: Tick[] = [];
  for await (const tick of (await openTrace(file)).ticks()) found.push(tick);
  return found;
}

/** Reports of which each is some 10 kB. */
function* loud(count: number): Generator<Tick> {
  for (let tick = 1; tick <= count; tick++) {
    const processes = Array.from({ length: 50 }, (_, i) =>
      sampleProcess({ pid: 100 + i, ranNs: 1e6, cpuNs: tick * 1e6, comm: `p${i} ${tick}` }),
    );
    yield sampleTick(tick, [sampleDomain('web', processes)]);
  }
}

test('a trace read back is what the daemon reported', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  const story = [...backupStory(60)];
  await record(file, story);
  t.deepEqual(await read(file), story);
  t.is((await stat(file)).mode & 0o777, 0o600);
  const { header } = await openTrace(file);
  t.like(header, { format: 'domsched-trace/1', part: 1, source: 'daemon' });
});

test('cut off anywhere, a trace gives every tick that is whole', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  const story = [...backupStory(12)];
  await record(file, story);
  const bytes = await readFile(file);
  const ends = [...bytes.entries()].filter(([, byte]) => byte === 10).map(([at]) => at);
  for (const size of [...ends.slice(1).flatMap((end) => [end - 1, end, end + 1, end + 7]), bytes.length]) {
    if (size > bytes.length) continue;
    await writeFile(file, bytes.subarray(0, size));
    const whole = ends.filter((end) => end < size).length - 1;
    // Without its newline a line may be whole nevertheless.
    const found = await read(file);
    t.true(found.length === whole || (found.length === whole + 1 && ends.includes(size)), String(size));
    t.deepEqual(found, story.slice(0, found.length));
  }
});

test('after a power cut the end may be zeros', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  const story = [...backupStory(5)];
  await record(file, story);
  await truncate(file, (await stat(file)).size + 4096);
  t.deepEqual(await read(file), story);
});

test('the limit holds; what is left are the last ticks, each whole', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  const maxBytes = 128 * 1024;
  await record(file, loud(200), maxBytes);
  const size = (await stat(file)).size + (await stat(`${file}.1`)).size;
  t.true(size <= maxBytes, String(size));
  t.true(size > maxBytes / 3, String(size));
  const found = await read(file);
  const last = [...loud(200)].slice(-found.length);
  t.true(found.length > 4);
  t.deepEqual(found, last);
});

test('an older trace makes room; anything else is left alone', async (t) => {
  const place = await folder(t);
  const file = path.join(place, 'a.trace');
  await record(file, backupStory(3));
  await record(file, backupStory(5));
  // The older one is of another trace: it is not read along.
  t.is((await read(file)).length, 5);
  t.is((await read(`${file}.1`)).length, 3);
  const precious = path.join(place, 'precious');
  await writeFile(precious, 'my thesis');
  const error = await t.throwsAsync(record(precious, []), { instanceOf: DomschedError });
  t.is(error.code, 'usage');
  t.is(await readFile(precious, 'utf8'), 'my thesis');
  await symlink(precious, path.join(place, 'link'));
  await t.throwsAsync(record(path.join(place, 'link'), []), { instanceOf: DomschedError });
  t.is((await t.throwsAsync(record(place, []), { instanceOf: DomschedError })).code, 'usage');
  t.is(
    (await t.throwsAsync(record(path.join(place, 'no', 'x'), []), { instanceOf: DomschedError })).code,
    'usage',
  );
  t.is((await t.throwsAsync(record(file, [], 10), { instanceOf: DomschedError })).code, 'usage');
});

test('a tick that is more than the limit ends the trace, tells it once and throws nothing', async (t) => {
  const errors: DomschedError[] = [];
  const file = path.join(await folder(t), 'a.trace');
  const recorder = await TraceRecorder.create({
    file,
    source: 'daemon',
    maxBytes: 64 * 1024,
    onError: (error) => errors.push(error),
  });
  const many = Array.from({ length: 2000 }, (_, i) => sampleProcess({ pid: i }));
  const [first] = backupStory(1);
  recorder.tick(first!);
  recorder.tick(sampleTick(2, [sampleDomain('web', many)]));
  recorder.tick(sampleTick(3, [sampleDomain('web', many)]));
  await recorder.close();
  t.deepEqual(
    errors.map(({ code }) => code),
    ['trace-failed'],
  );
});

/** A disk with so many bytes free: what does not fit is written in part, as file systems do. */
class SmallDisk {
  free: number;
  /** There is no room for another file. */
  hasNoFiles = false;
  isBroken = false;

  constructor(free: number) {
    this.free = free;
  }

  readonly openNew = async (file: string): Promise<TraceHandle> => {
    if (this.hasNoFiles) throw diskError('ENOSPC');
    const handle = await open(file, 'ax');
    return {
      writeFile: async (data) => {
        if (this.isBroken) throw diskError('EIO');
        const bytes = data as Buffer;
        const fits = Math.min(bytes.length, this.free);
        this.free -= fits;
        await handle.writeFile(bytes.subarray(0, fits));
        if (fits < bytes.length) throw diskError('ENOSPC');
      },
      truncate: async (length = 0) => {
        this.free += (await handle.stat()).size - length;
        await handle.truncate(length);
      },
      close: () => handle.close(),
    };
  };
}

function diskError(code: string): Error {
  return Object.assign(new Error(`${code}: says the disk`), { code });
}

/** A recorder on a small disk, what it said, and a clock of its own. */
async function onSmallDisk(t: ExecutionContext, disk: SmallDisk, maxBytes?: number) {
  const file = path.join(await folder(t), 'a.trace');
  const said: unknown[] = [];
  let nowMs = 0;
  const recorder = await TraceRecorder.create({
    file,
    source: 'daemon',
    openNew: disk.openNew,
    now: () => nowMs,
    onError: ({ code }) => said.push(code),
    onRoom: (room) => said.push(room),
    ...(maxBytes !== undefined && { maxBytes }),
  });
  const wait = (ms: number) => {
    nowMs += ms;
  };
  return { file, said, recorder, wait };
}

test('on a full disk ticks are left out and counted; when there is room the trace goes on', async (t) => {
  const story = [...loud(50)];
  // Wherever it fills up: in the header, in a line, between two.
  for (const free of [0, 1, 300, 5_000, 20_000, 60_000]) {
    const disk = new SmallDisk(free);
    const { file, said, recorder, wait } = await onSmallDisk(t, disk);
    // Many at once, before the disk has said anything.
    for (const tick of story.slice(0, 20)) recorder.tick(tick);
    await until('the disk is full', () => said.length > 0);
    for (const tick of story.slice(20, 30)) recorder.tick(tick);
    disk.free += 1e6;
    for (const tick of story.slice(30, 40)) recorder.tick(tick);
    t.deepEqual(said, [{ isFull: true }], 'not tried at every tick');
    wait(1_000);
    recorder.tick(story[40]!);
    await until('it goes on', () => said.length > 1);
    for (const tick of story.slice(41)) recorder.tick(tick);
    await recorder.close();
    const found = await read(file);
    const before = found.length - 10;
    t.deepEqual(found, [...story.slice(0, before), ...story.slice(40)], `${free} bytes`);
    t.deepEqual(said, [{ isFull: true }, { isFull: false, dropped: 40 - before }]);
    const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
    t.like(JSON.parse(lines[before + 1]!), { tick: 41, full: true, dropped: 40 - before });
  }
});

test('a disk that has no room for the next part, and one that is full to the end', async (t) => {
  const disk = new SmallDisk(1e6);
  const { file, said, recorder, wait } = await onSmallDisk(t, disk, 128 * 1024);
  const story = [...loud(60)];
  disk.hasNoFiles = true;
  for (const tick of story.slice(0, 40)) recorder.tick(tick);
  await until('no room for a new file', () => said.length > 0);
  disk.hasNoFiles = false;
  wait(1_000);
  recorder.tick(story[40]!);
  await until('it goes on', () => said.length > 1);
  const found = await read(file);
  t.deepEqual(found, [...story.slice(0, found.length - 1), story[40]]);
  t.true(found.length > 1 && found.length < 40);
  t.is((await openTrace(file)).header.part, 1);

  disk.free = 0;
  recorder.tick(story[41]!);
  await recorder.close();
  t.deepEqual(said.slice(2), [{ isFull: true }, 'trace-failed']);
  t.deepEqual(await read(file), found);
});

test('a broken disk ends the trace', async (t) => {
  const disk = new SmallDisk(1e6);
  const { file, said, recorder } = await onSmallDisk(t, disk);
  const story = [...loud(3)];
  recorder.tick(story[0]!);
  await until('it is written', async () => (await read(file)).length === 1);
  disk.isBroken = true;
  for (const tick of story.slice(1)) recorder.tick(tick);
  await recorder.close();
  t.deepEqual(said, ['trace-failed']);
  t.deepEqual(await read(file), story.slice(0, 1));
});

test('what is no trace is refused with its line', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  await record(file, backupStory(3));
  const lines = (await readFile(file, 'utf8')).split('\n');
  for (const [at, text, line] of [
    [0, '{"format":"domsched-trace/2"}', 1],
    [1, '{"tick":1}', 2],
    [2, 'null', 3],
    [2, '{', 3],
  ] as const) {
    await writeFile(file, lines.with(at, text).join('\n'));
    const error = await t.throwsAsync(read(file), { instanceOf: DomschedError });
    t.is(error.code, 'trace-invalid');
    t.is(error.details.line, line);
  }
  await writeFile(file, '');
  t.is((await t.throwsAsync(read(file), { instanceOf: DomschedError })).code, 'trace-invalid');
  t.is((await t.throwsAsync(read(`${file}.none`), { instanceOf: DomschedError })).code, 'trace-invalid');
});

/** Waits for what was told so far to be on disk. */
const written = (file: string, ticks: number) =>
  until('the ticks are written', async () => {
    const found = await read(file).catch(() => []);
    return found.length >= ticks;
  });

for (const [how, take] of [
  ['moved away', (file: string) => rename(file, `${file}.moved`)],
  ['removed', (file: string) => rm(file)],
  // As logrotate does with `create`.
  [
    'moved away and made again, empty',
    async (file: string) => {
      await rename(file, `${file}.moved`);
      await writeFile(file, '');
    },
  ],
] as const) {
  test(`a trace that was ${how} goes on under its name, one tick later`, async (t) => {
    const file = path.join(await folder(t), 'a.trace');
    const story = [...backupStory(12)];
    const errors: DomschedError[] = [];
    const recorder = await TraceRecorder.create({
      file,
      source: 'daemon',
      onError: (error) => errors.push(error),
    });
    for (const tick of story.slice(0, 4)) recorder.tick(tick);
    await written(file, 4);
    await take(file);
    recorder.tick(story[4]!);
    await until(
      'the file is there again',
      async () => ((await stat(file).catch(() => undefined))?.size ?? 0) > 0,
    );
    for (const tick of story.slice(5)) recorder.tick(tick);
    await recorder.close();
    t.deepEqual(errors, []);
    t.deepEqual(await read(file), story.slice(5));
    if (how !== 'removed') t.deepEqual(await read(`${file}.moved`), story.slice(0, 4));
  });
}

test('what somebody put in the place of a trace stays as it is, and the trace ends', async (t) => {
  const file = path.join(await folder(t), 'a.trace');
  const story = [...backupStory(3)];
  const errors: DomschedError[] = [];
  const recorder = await TraceRecorder.create({
    file,
    source: 'daemon',
    onError: (error) => errors.push(error),
  });
  recorder.tick(story[0]!);
  await written(file, 1);
  await rm(file);
  await writeFile(file, 'a letter');
  for (const tick of story.slice(1)) recorder.tick(tick);
  await recorder.close();
  t.deepEqual(
    errors.map(({ code }) => code),
    ['trace-failed'],
  );
  t.is(await readFile(file, 'utf8'), 'a letter');
});
