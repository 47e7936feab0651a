/** A journal that the broker cannot write is known to the reader, who tells operators of it. */
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { errorOf } from '../../../runtime/brokered/failure.ts';
import { brokeredJournals } from '../../../runtime/brokered/journals.ts';
import { until } from '../../live/until.ts';
import { brokerOver, machineProcess, scratch } from '../broker/bench.ts';
import { HELD } from '../surgeon/held-record.ts';

test.serial('nothing is held while the broker cannot write it down; when it can, that is over', async (t) => {
  const directory = await scratch(t);
  process.env.DOMSCHED_RUNTIME_DIR = directory;
  const { ask, open } = brokerOver(directory);
  await open();
  const client = {
    ask: async (request: object) => {
      const { value, error } = await ask(request);
      if (error !== undefined) throw errorOf(error as Parameters<typeof errorOf>[0]);
      return value;
    },
  } as unknown as Parameters<typeof brokeredJournals>[0];
  const { held, health } = brokeredJournals(client, directory);
  const { pid, started, name } = machineProcess;
  const id = `pid:${pid}`;
  const record = { ...HELD, connection: id, domain: id, name, machine: { pid, started } };
  // A file is where the folder of records has to be.
  const place = path.join(directory, 'held');
  rmSync(place, { recursive: true, force: true });
  writeFileSync(place, '');
  await t.throwsAsync(held.add(record), { code: 'journal-failed' });
  t.is(health.failure?.code, 'journal-failed');
  health.probe();
  await ask({ op: 'ids', host: 0 });
  t.is(health.failure?.code, 'journal-failed', 'it still cannot');
  rmSync(place);
  await until('it can again', () => {
    health.probe();
    return health.failure === undefined;
  });
  await held.add(record);
  t.is((await held.list()).length, 1);
});
