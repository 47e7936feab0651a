import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { comparison, flat, tree } from '../../../runtime/command/ps-order.ts';
import { table } from '../../../runtime/command/ps-table.ts';
import type { ProcessRow } from '../../../runtime/control/control.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { duration } from '../../../runtime/top/duration.ts';
import { domsched } from '../../live/ps-layouts.ts';
import { defaultTasks, SYNTHETIC_KERNELS, SyntheticGuest } from '../guest/synthetic.ts';
import { writeRaw } from '../guest/write-raw.ts';

function row(facts: Partial<ProcessRow> & { pid: number }): ProcessRow {
  return {
    domain: 'vm',
    tgid: facts.pid,
    ppid: 0,
    comm: 'x',
    rawComm: 'x',
    state: 'sleeping',
    cpu: 0,
    nice: 0,
    policy: 'normal',
    utimeNs: 0,
    stimeNs: 0,
    runtimeNs: 0,
    threads: 1,
    kernelThread: false,
    exiting: false,
    startTimeNs: 0,
    ...facts,
  };
}

test('tree: children below their parents, threads below their process', (t) => {
  const rows = [
    row({ pid: 2, ppid: 1 }),
    row({ pid: 1 }),
    row({ pid: 4, ppid: 2 }),
    row({ pid: 3, ppid: 1 }),
    row({ pid: 5, ppid: 1, tgid: 2 }),
  ];
  t.deepEqual(
    tree(rows, comparison('pid')).map(({ process, depth }) => [process.pid, depth]),
    [
      [1, 0],
      [2, 1],
      [4, 2],
      [5, 2],
      [3, 1],
    ],
  );
});

test('tree: each process once, whatever its parent is said to be', (t) => {
  const facts = fc.array(
    fc.record({ pid: fc.integer({ min: 0, max: 12 }), ppid: fc.integer({ min: 0, max: 12 }) }),
    {
      maxLength: 30,
    },
  );
  fc.assert(
    fc.property(facts, (list) => {
      const rows = list.map(row);
      const listed = tree(rows, comparison('pid'));
      t.is(listed.length, rows.length);
      t.is(new Set(listed.map(({ process }) => process)).size, rows.length);
    }),
  );
});

test('sort: by every key, in both directions, by pid among equals', (t) => {
  const rows = [
    row({ pid: 3, nice: 5, utimeNs: 10, state: 'running', comm: 'b', cpu: 1 }),
    row({ pid: 1, nice: -5, utimeNs: 30, state: 'sleeping', comm: 'a', cpu: 0 }),
    row({ pid: 2, nice: 5, stimeNs: 20, state: 'ready', comm: 'c', cpu: 1 }),
  ];
  const pids = (key: string) => flat(rows, comparison(key)).map(({ process }) => process.pid);
  t.deepEqual(pids('pid'), [1, 2, 3]);
  t.deepEqual(pids('-pid'), [3, 2, 1]);
  t.deepEqual(pids('nice'), [1, 2, 3]);
  t.deepEqual(pids('-nice'), [2, 3, 1]);
  t.deepEqual(pids('time'), [1, 2, 3]);
  t.deepEqual(pids('state'), [3, 2, 1]);
  t.deepEqual(pids('comm'), [1, 3, 2]);
  t.deepEqual(pids('cpu'), [1, 2, 3]);
  t.is(t.throws(() => comparison('constructor'), { instanceOf: DomschedError }).code, 'usage');
});

test('time is minutes and seconds', (t) => {
  t.is(duration(0), '0:00.00');
  t.is(duration(9_999_999), '0:00.00');
  t.is(duration(61.25e9), '1:01.25');
  t.is(duration(3600e9), '60:00.00');
});

test('table: columns line up, and no name of a domain or process reaches the terminal as it is', (t) => {
  const text = table(
    flat([row({ pid: 1, domain: 'vm\x1b[2J' }), row({ pid: 22, kernelThread: true })], comparison('pid')),
  );
  const lines = text.trimEnd().split('\n');
  t.is(lines.length, 3);
  t.regex(lines[1]!, /vm\\x1b\[2J/);
  t.regex(lines[2]!, / \[x\]$/);
  t.is(lines[0]!.indexOf('STATE'), lines[1]!.indexOf('sleeping'));
});

test('wrong usage exits with 2, a missing domain with 1, and nothing is printed to standard output', async (t) => {
  const connect = ['--connect', 'qemu:unix:/nonexistent/qmp.sock'];
  const runs: [string[], number, RegExp][] = [
    [['ps', '--sort', 'size'], 2, /--sort knows pid/],
    [['ps', '--watch', 'never'], 2, /--watch takes seconds/],
    [['ps', '--watch', '0'], 2, /--watch takes seconds/],
    [['ps', '--connect', 'vmware:'], 2, /--connect vmware: is none of/],
    [['ps', '--no-such-option'], 2, /unknown option/],
    [['ps', ...connect], 1, /nonexistent/],
    [['ps', 'web', ...connect], 1, /nonexistent/],
  ];
  await Promise.all(
    runs.map(async ([args, code, message]) => {
      const { exitCode, stdout, stderr } = await domsched(args, { reject: false });
      t.is(exitCode, code, args.join(' '));
      t.regex(String(stderr), message);
      t.is(stdout, '');
    }),
  );
});

test('guests with different kernels at once; one that cannot be read keeps none from being shown', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ps-dumps-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const connect: string[] = [];
  for (const [i, kernel] of SYNTHETIC_KERNELS.entries()) {
    const file = path.join(folder, `vm${i}`);
    await writeRaw(await SyntheticGuest.make({ kernel }), file);
    connect.push('--connect', `dump:${file}`);
  }
  const broken = path.join(folder, 'broken');
  await writeFile(broken, Buffer.alloc(1 << 20, 'no kernel here'));
  connect.push('--connect', `dump:${broken}`);

  const { exitCode, stdout, stderr } = await domsched(['ps', ...connect, '--json', '--threads'], {
    reject: false,
  });
  t.is(exitCode, 1);
  t.regex(String(stderr), /^domsched: .*broken.* \[kernel-unidentified\]$/m);
  const rows = JSON.parse(String(stdout)) as ProcessRow[];
  for (const [i] of SYNTHETIC_KERNELS.entries()) {
    const own = rows.filter(({ domain }) => domain === `vm${i}`);
    t.deepEqual(
      own.map(({ pid, comm, nice }) => [pid, comm, nice]),
      defaultTasks().map(({ pid, comm, nice }) => [pid, comm, nice ?? 0]),
    );
  }
  const one = await domsched(['ps', 'vm1', ...connect, '--tree'], { reject: false });
  t.is(one.exitCode, 0);
  t.regex(String(one.stdout), /^vm1 +13 .* {4}tar$/m);
  t.is(one.stderr, '');
  // What cannot be paused is refused by name.
  const paused = await domsched(['ps', 'vm1', ...connect, '--pause'], { reject: false });
  t.is(paused.exitCode, 1);
  t.regex(String(paused.stderr), /\[capability-missing\]/);
});
