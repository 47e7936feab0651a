import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { ExtractError } from '../../extractor/error.ts';
import { KnownError } from '../../extractor/known-error.ts';
import { KernelsError } from '../../kernels/error.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { DomschedError } from '../../runtime/error.ts';

test('all errors are of one family', (t) => {
  const errors = [
    new ExtractError('no-space', 'full', { file: 'f' }),
    new KernelsError('no-space', 'full', { file: 'f' }),
    new DomschedError('trace-failed', 'full', { file: 'f' }),
  ];
  for (const error of errors) {
    t.true(error instanceof KnownError);
    t.deepEqual([error.message, error.details, error.exitCode], ['full', { file: 'f' }, 1]);
  }
});

for (const [command, code] of [
  [['extract', '/nonexistent/vmlinux'], 'file-not-found'],
  [['extract', '--from', 'nowhere', '--connect', 'qemu:'], 'domain-not-found'],
  [['ps', 'nowhere', '--connect', 'qemu:'], 'domain-not-found'],
] as const) {
  test(`${command.join(' ')}: the compiled program knows its own error, bundled or not`, async (t) => {
    const program = path.join(projectDirectory, 'dist', 'domsched.js');
    const { stderr, exitCode } = await execa('node', [program, ...command], { reject: false });
    t.regex(stderr, new RegExp(`^domsched: [^\\n]+ \\[${code}\\]$`));
    t.is(exitCode, 1);
  });
}

for (const command of [['layouts'], ['domains', '--connect', 'qemu:']]) {
  test(`${command.join(' ')}: what cannot be printed is told in one line`, async (t) => {
    const program = path.join(projectDirectory, 'dist', 'domsched.js');
    const said = await execa('sh', ['-c', 'exec node "$@" >/dev/full', 'sh', program, ...command], {
      reject: false,
    });
    t.regex(said.stderr, /^domsched: standard output cannot be written: ENOSPC[^\n]* \[output-failed\]$/);
    t.is(said.exitCode, 1);
  });
}
