import { execFileSync } from 'node:child_process';
import test from 'ava';
import { runNode } from './run-cli.ts';

const program = (quiet: boolean, wait: number) => `
  const { Progress } = await import(${JSON.stringify(new URL('../../extractor/progress.ts', import.meta.url).href)});
  const progress = new Progress(${quiet});
  progress.report(1, 4, 'reading too soon');
  await new Promise((resolve) => setTimeout(resolve, ${wait}));
  progress.report(3, 4, 'reading DWARF');
  progress.stop();
  process.stdout.write('done');`;

/** Runs a script with a terminal for its output, as util-linux's script(1) gives one. */
function onTerminal(source: string, columns = 80): string {
  const quoted = `'${source.replaceAll("'", `'\\''`)}'`;
  const command = `stty cols ${columns} rows 24; "${process.execPath}" --input-type=module -e ${quoted}`;
  // ora takes a CI machine for one without a terminal; here there is one.
  const { CI: _, ...env } = process.env;
  return execFileSync('script', ['-qec', command, '/dev/null'], {
    encoding: 'utf8',
    env: { ...env, TERM: 'xterm' },
  });
}

test('a terminal shows slow work, once it is slow, and is left clean', (t) => {
  const shown = onTerminal(program(false, 600));
  t.regex(shown, /75 % reading DWARF/);
  t.notRegex(shown, /too soon/);
  // The cursor that ora hides is shown again.
  if (shown.includes('\x1b[?25l')) t.true(shown.lastIndexOf('\x1b[?25h') > shown.lastIndexOf('\x1b[?25l'));
  t.true(shown.includes('done'));
});

test('a terminal without a width shows nothing', (t) => {
  t.is(onTerminal(program(false, 600), 0), 'done');
});

test('quick work, --quiet and pipes show nothing', (t) => {
  t.is(onTerminal(program(false, 0)), 'done');
  t.is(onTerminal(program(true, 600)), 'done');
  const piped = runNode(['--input-type=module', '-e', program(false, 600)]);
  t.deepEqual([piped.code, piped.stdout, piped.stderr], [0, 'done', '']);
});
