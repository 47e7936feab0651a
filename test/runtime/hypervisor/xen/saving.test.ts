import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { SavingWatch } from '../../../../runtime/hypervisor/xen/saving.ts';

test('processes are listed while there may be a new one, and not again before the host has made another', (t) => {
  const proc = mkdtempSync(path.join(tmpdir(), 'domsched-proc-'));
  t.teardown(() => rmSync(proc, { recursive: true }));
  const { now } = performance;
  let clock = 0;
  performance.now = () => clock;
  t.teardown(() => {
    performance.now = now;
  });
  const made = (count: number) =>
    writeFileSync(path.join(proc, 'stat'), `cpu  1 2 3\nprocesses ${count}\nprocs_running 1\n`);
  const process = (pid: number, comm: string, args: string[]) => {
    mkdirSync(path.join(proc, String(pid)), { recursive: true });
    writeFileSync(path.join(proc, String(pid), 'comm'), `${comm}\n`);
    writeFileSync(path.join(proc, String(pid), 'cmdline'), args.join('\0'));
  };
  const saver = ['libxl-save-helper', '--save-domain', '11', '-1', '5', '1', '0', '0', ''];
  const watch = new SavingWatch(proc);

  made(2);
  process(1, 'init', ['init']);
  process(2, 'xl', ['xl', 'save']);
  t.deepEqual([...watch.domains()], []);
  // A fork that becomes the helper makes no other process.
  process(2, 'libxl-save-help', saver);
  t.deepEqual([...watch.domains()], [[5, 'live']]);
  t.deepEqual([...watch.domains()], [[5, 'live']], 'as long as it is there');
  rmSync(path.join(proc, '2'), { recursive: true });
  t.deepEqual([...watch.domains()], []);

  clock = 3_000;
  t.deepEqual([...watch.domains()], []);
  // Without a word of the kernel this cannot be; that it is not seen shows that nothing was listed.
  process(3, 'libxl-save-help', saver);
  t.deepEqual([...watch.domains()], []);
  made(3);
  t.deepEqual([...watch.domains()], [[5, 'live']]);
  // A host that does not tell is looked at each time.
  rmSync(path.join(proc, 'stat'));
  rmSync(path.join(proc, '3'), { recursive: true });
  t.deepEqual([...watch.domains()], []);
  process(3, 'libxl-save-help', saver);
  t.deepEqual([...watch.domains()], [[5, 'live']]);
});
