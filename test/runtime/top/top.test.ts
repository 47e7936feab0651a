import process from 'node:process';
import { stripVTControlCharacters } from 'node:util';
import test from 'ava';
import { execa } from 'execa';
import fc from 'fast-check';
import { projectDirectory } from '../../../kernels/paths.ts';
import type { TickProcess } from '../../../runtime/tick/tick.ts';
import { frame } from '../../../runtime/top/frame.ts';
import { press } from '../../../runtime/top/keys.ts';
import { entriesOf, FIRST_VIEW, ORDERS } from '../../../runtime/top/view.ts';
import { openTrace } from '../../../runtime/trace/read.ts';
import { until } from '../../live/until.ts';
import { fakeDaemon } from '../control.ts';
import { backupStory, isoAt, sampleDomain, sampleProcess, sampleTick } from '../sample-ticks.ts';
import { anyTicks } from '../trace/arbitrary.ts';

const PLAIN = { columns: 120, rows: 40, colour: false, keys: true };

test('no tick makes a line wider or a picture higher than the screen, or a character act', (t) => {
  const screens = fc.record({
    columns: fc.integer({ min: 1, max: 200 }),
    rows: fc.integer({ min: 1, max: 60 }),
    colour: fc.boolean(),
    keys: fc.boolean(),
  });
  const views = fc.record({
    sort: fc.constantFrom(...Object.keys(ORDERS)),
    reversed: fc.boolean(),
    kernelThreads: fc.boolean(),
    paused: fc.boolean(),
    top: fc.nat(100),
  });
  fc.assert(
    fc.property(anyTicks(), screens, views, ([tick], screen, view) => {
      const { lines, page, last } = frame(tick!, view, screen);
      t.true(lines.length <= screen.rows);
      t.true(page >= 1 && last >= 0);
      for (const line of lines) {
        // Without the colours that are ours nothing but letters is left.
        const letters = screen.colour ? line.replace(/\x1b\[\d+m/g, '') : line;
        t.regex(letters, /^[\x20-\x7e]*$/);
        t.true(letters.length <= screen.columns);
        t.is(stripVTControlCharacters(letters), letters);
      }
    }),
  );
});

test('the busiest first, what is held with its reason, domains with their share', (t) => {
  const tick = [...backupStory(20)].at(-1)!;
  const { lines } = frame(tick, FIRST_VIEW, PLAIN);
  t.regex(lines[0]!, /^domsched: 3 domains, 8 processes, 1 held, tick 20 of 500 ms/);
  const list = lines.slice(lines.findIndex((line) => line.startsWith('DOMAIN')) + 1);
  const shares = entriesOf(tick, FIRST_VIEW).map(({ share }) => share);
  t.deepEqual(
    shares,
    shares.toSorted((a, b) => b - a),
  );
  t.is(list[0]!.split(/ +/)[1], String(entriesOf(tick, FIRST_VIEW)[0]!.process.pid));
  t.true(list.some((line) => /^batch +200 +held .* backup +idle-only: httpd of web runs$/.test(line)));
  t.regex(lines[1]!, /^batch +\[\|+ *\] +22\.0 % of 2 CPUs {2}6\.1\.0-test$/);
});

test('a domain that cannot be read has a line, whatever room there is', (t) => {
  const many = Array.from({ length: 50 }, (_, i) =>
    sampleDomain(`vm${i}`, [sampleProcess({ pid: 1, ranNs: 1e8 })]),
  );
  const broken = sampleDomain('broken', [], { error: { code: 'layout-unknown', message: 'no layout' } });
  const { lines } = frame(sampleTick(2, [...many, broken]), FIRST_VIEW, { ...PLAIN, rows: 24 });
  t.true(lines.includes('broken  no layout [layout-unknown]'));
  t.true(lines.includes('and 45 more domains'));
});

test('keys: orders, reverse, kernel threads, scrolling, stand still, end', (t) => {
  const processes = (facts: Partial<TickProcess>[]) =>
    facts.map((fact, i) => sampleProcess({ pid: i + 1, ...fact }));
  const tick = sampleTick(2, [
    sampleDomain(
      'web',
      processes([
        { comm: 'b', cpuNs: 5e9, ranNs: 0, nice: 3 },
        { comm: 'a', cpuNs: 9e9, ranNs: 1e8, nice: -2 },
        { comm: 'c', cpuNs: 1e9, held: { policy: 'p', reason: 'r', since: isoAt(0) } },
        { comm: 'k', kernelThread: true },
      ]),
    ),
  ]);
  const pids = (keys: string) => {
    let view = FIRST_VIEW;
    for (const name of keys) {
      const effect = press({ name }, view, 10);
      if (typeof effect === 'object') view = effect;
    }
    return entriesOf(tick, view).map(({ process: { pid } }) => pid);
  };
  t.deepEqual(pids('c'), [2, 3, 1]);
  t.deepEqual(pids('t'), [2, 1, 3]);
  t.deepEqual(pids('h'), [3, 2, 1]);
  t.deepEqual(pids('p'), [1, 2, 3]);
  t.deepEqual(pids('n'), [2, 1, 3]);
  t.deepEqual(pids('nr'), [3, 1, 2]);
  t.deepEqual(pids('i'), [2, 3, 1]);
  t.deepEqual(pids('pk'), [1, 2, 3, 4]);
  t.is(press({ name: 'q' }, FIRST_VIEW, 10), 'quit');
  t.is(press({ name: 'c', ctrl: true }, FIRST_VIEW, 10), 'quit');
  t.is(press({ name: 'constructor' }, FIRST_VIEW, 10), undefined);
  t.is(press({}, FIRST_VIEW, 10), undefined);
  t.like(press({ name: 'pagedown' }, { ...FIRST_VIEW, top: 5 }, 10), { top: 15 });
  t.like(press({ name: 'pageup' }, { ...FIRST_VIEW, top: 5 }, 10), { top: 0 });
  t.like(press({ name: 'space' }, FIRST_VIEW, 10), { paused: true });
});

const program = ['domsched.ts', 'top'];

test('into a pipe: plain text, one picture per tick of the daemon, to the end that was asked for', async (t) => {
  await using daemon = await fakeDaemon();
  const env = { DOMSCHED_RUNTIME_DIR: daemon.directory, FORCE_COLOR: '0' };
  const running = execa(process.execPath, [...program, '--count', '2', '--sort', 'pid'], {
    cwd: projectDirectory,
    env,
    reject: false,
  });
  await until('top watches', () => daemon.watched);
  for (const tick of backupStory(3)) daemon.tick(tick);
  const { exitCode, stdout, stderr } = await running;
  t.is(exitCode, 0, stderr);
  t.is(stdout.match(/^domsched: 3 domains/gm)?.length, 2);
  t.regex(stdout, /^[\x20-\x7e\n]*$/);
  t.notRegex(stdout, /quit/);
});

test('on a terminal: redrawn, keys work, and the terminal is given back', async (t) => {
  await using daemon = await fakeDaemon();
  // Of our own environment only this: CI, TMUX, NO_COLOR and others decide about colours too.
  const { PATH, HOME } = process.env;
  const env = { PATH, HOME, TERM: 'xterm-256color', DOMSCHED_RUNTIME_DIR: daemon.directory };
  // script gives the command a terminal of its own, of our size.
  const command = `stty rows 20 cols 90; exec '${process.execPath}' ${program.join(' ')}`;
  const running = execa('script', ['-qec', command, '/dev/null'], {
    cwd: projectDirectory,
    env,
    extendEnv: false,
    reject: false,
    timeout: 120_000,
  });
  let screen = '';
  running.stdout.on('data', (chunk: Buffer) => {
    screen += chunk.toString('latin1');
  });
  await until('top watches', () => daemon.watched);
  const story = backupStory(1000);
  const tick = () => daemon.tick(story.next().value!);
  for (let i = 0; i < 14; i++) tick();
  await until('the 14th tick is there', () => screen.includes('tick 14 of'));
  running.stdin.write('p');
  await until('the order is another', () => screen.includes('by pid'));
  const last = screen.slice(screen.lastIndexOf('\x1b[H'));
  const lines = stripVTControlCharacters(last).split('\r\n');
  t.true(lines.length <= 20);
  t.true(lines.every((line) => line.length <= 90));
  t.regex(last, /\x1b\[33m[^\x1b]*backup/);
  running.stdin.write('q');
  const { exitCode } = await running;
  t.is(exitCode, 0);
  t.true(screen.startsWith('\x1b[?1049h\x1b[?25l'));
  t.true(screen.trimEnd().endsWith('\x1b[?25h\x1b[?1049l'));
});

test('trace listens to the daemon, and keeps what it has when the daemon ends', async (t) => {
  const daemon = await fakeDaemon();
  const file = `${daemon.directory}.trace`;
  t.teardown(() => execa('rm', ['-f', file]));
  const env = { DOMSCHED_RUNTIME_DIR: daemon.directory };
  const running = execa(process.execPath, ['domsched.ts', 'trace', '-o', file], {
    cwd: projectDirectory,
    env,
    reject: false,
  });
  await until('trace watches', () => daemon.watched);
  const story = [...backupStory(5)];
  for (const tick of story) daemon.tick(tick);
  const recorded = async () => {
    const found = [];
    const trace = await openTrace(file).catch(() => undefined);
    if (trace !== undefined) for await (const tick of trace.ticks()) found.push(tick);
    return found;
  };
  await until('five ticks are written', async () => (await recorded()).length === 5);
  await daemon[Symbol.asyncDispose]();
  const { exitCode, stderr } = await running;
  t.is(exitCode, 1);
  t.regex(stderr, /the daemon ended \[host-unreachable\]/);
  t.deepEqual(await recorded(), story);
  t.is((await openTrace(file)).header.source, 'daemon');
});

test('wrong usage is told as such', async (t) => {
  const options = { cwd: projectDirectory, reject: false } as const;
  for (const args of [
    ['--sort', 'size'],
    ['--interval', '0'],
    ['--count', 'many'],
    ['--connect', 'vmware:'],
  ]) {
    t.is((await execa(process.execPath, [...program, ...args], options)).exitCode, 2, args.join(' '));
  }
});
