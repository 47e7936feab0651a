import { mkdtemp, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { TickReport } from '../../../runtime/daemon/report.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { openTrace } from '../../../runtime/trace/read.ts';
import { TraceRecorder } from '../../../runtime/trace/recorder.ts';
import { backupStory, domainReport, processReport, tickReport } from '../tick-reports.ts';

async function folder(t: ExecutionContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'trace-'));
  t.teardown(() => rm(made, { recursive: true, force: true }));
  return made;
}

async function record(file: string, reports: Iterable<TickReport>, maxBytes?: number): Promise<void> {
  const recorder = await TraceRecorder.create({ file, source: 'daemon', ...(maxBytes && { maxBytes }) });
  for (const report of reports) recorder.tick(report);
  await recorder.close();
}

async function read(file: string): Promise<TickReport[]> {
  const found: TickReport[] = [];
  for await (const report of (await openTrace(file)).ticks()) found.push(report);
  return found;
}

/** Reports of which each is some 10 kB. */
function* loud(count: number): Generator<TickReport> {
  for (let tick = 1; tick <= count; tick++) {
    const processes = Array.from({ length: 50 }, (_, i) =>
      processReport({ pid: 100 + i, ranNs: 1e6, cpuNs: tick * 1e6, comm: `p${i} ${tick}` }),
    );
    yield tickReport(tick, [domainReport('web', processes)]);
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

test('a full disk ends the trace, tells it once and throws nothing', async (t) => {
  const errors: DomschedError[] = [];
  const file = path.join(await folder(t), 'a.trace');
  const recorder = await TraceRecorder.create({
    file,
    source: 'daemon',
    maxBytes: 64 * 1024,
    onError: (error) => errors.push(error),
  });
  // One tick that is more than the limit: as good as a disk without room.
  const many = Array.from({ length: 2000 }, (_, i) => processReport({ pid: i }));
  const [first] = backupStory(1);
  recorder.tick(first!);
  recorder.tick(tickReport(2, [domainReport('web', many)]));
  recorder.tick(tickReport(3, [domainReport('web', many)]));
  await recorder.close();
  t.deepEqual(
    errors.map(({ code }) => code),
    ['trace-failed'],
  );
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
