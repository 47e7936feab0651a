import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { DaemonLog } from '../../../runtime/daemon/daemon-log.ts';

const messages = async (file: string) =>
  (await readFile(file, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).msg as string);

test('after a rotation the log goes on in the file that has the name, and nothing is lost', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'daemon-log-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'deep', 'log');
  const log = new DaemonLog({ level: 'info', file });
  log.logger.info('one');
  await rename(file, `${file}.1`);
  log.logger.info('two');
  log.reopen();
  log.logger.info('three');
  await rm(path.dirname(file), { recursive: true });
  log.reopen();
  log.logger.info('four');
  t.deepEqual(await messages(file), ['four']);
});

test('what was logged before is in the moved file; where none can be made, it goes on in the old one', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'daemon-log-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'log');
  const log = new DaemonLog({ level: 'info', file });
  log.logger.info('one');
  await rename(file, `${file}.1`);
  log.logger.info('two');
  await mkdir(file);
  log.reopen();
  log.logger.info('three');
  t.deepEqual(await messages(`${file}.1`), ['one', 'two', 'the log file cannot be opened again', 'three']);
  await rm(file, { recursive: true });
  log.reopen();
  log.logger.info('four');
  t.deepEqual(await messages(file), ['four']);
});

test('on standard output there is nothing to open again', (t) => {
  t.notThrows(() => new DaemonLog({ level: 'info' }).reopen());
});
