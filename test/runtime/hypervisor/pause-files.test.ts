import { fstatSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { makeTableFile, removeTableFile } from '../../../runtime/hypervisor/pause-files.ts';
import { PauseTable } from '../../../runtime/hypervisor/pause-table.ts';
import { pausesFolder } from '../../../runtime/hypervisor/xen/left-pause.ts';

/** With one attempt, some of so many are lost. */
const TABLES = 400;
const LEFT_PAUSE = new URL('../../../runtime/hypervisor/xen/left-pause.ts', import.meta.url).href;
const TIDIER = `
  const { workerData, parentPort } = require('node:worker_threads');
  import(${JSON.stringify(LEFT_PAUSE)}).then(({ LeftPauses }) => {
    const left = new LeftPauses(workerData);
    parentPort.postMessage('tidies');
    for (;;) left.tidy(() => undefined);
  });
`;

test('beside others of us that remove tables of dead processes, a new table is a file that they find', async (t) => {
  const root = mkdtempSync(path.join(tmpdir(), 'domsched-tables-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const worker = new Worker(TIDIER, { eval: true, workerData: root });
  t.teardown(async () => void (await worker.terminate()));
  await new Promise((resolve) => worker.once('message', resolve));
  let lost = 0;
  let none = 0;
  for (let made = 0; made < TABLES; made++) {
    const descriptor = makeTableFile(pausesFolder(root), 'xen');
    if (descriptor === undefined) {
      none += 1;
      continue;
    }
    if (fstatSync(descriptor).nlink === 0) lost += 1;
    removeTableFile(descriptor);
    new PauseTable(descriptor).close();
    await setImmediate();
  }
  t.is(lost, 0, 'removed by another one, and no longer found');
  t.is(none, 0, 'none was made, as if there were no room');
});
