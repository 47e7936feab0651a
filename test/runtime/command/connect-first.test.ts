import test from 'ava';
import { connectBehindCommand } from '../../../runtime/command/connect-first.ts';
import { domsched } from '../../extractor/run-cli.ts';

test('--connect before the command goes behind it, in its order; everything else stays', (t) => {
  const behind = (...typed: string[]) => connectBehindCommand(['node', 'domsched', ...typed]).slice(2);
  t.deepEqual(behind('--connect', 'xen:', 'ps', '--json'), ['ps', '--connect', 'xen:', '--json']);
  t.deepEqual(behind('--connect=a', '--connect', 'b', 'ps', '--connect', 'c'), [
    ...['ps', '--connect=a', '--connect', 'b', '--connect', 'c'],
  ]);
  t.deepEqual(behind('ps', '--connect', 'xen:'), ['ps', '--connect', 'xen:']);
  for (const typed of [[], ['--connect'], ['--connect', 'xen:'], ['--connect', 'xen:', '--help'], ['--help']])
    t.deepEqual(behind(...typed), typed);
});

test('the program takes --connect in both places, and refuses it where a command has none', (t) => {
  const place = 'dump:/nothing/there';
  const behind = domsched(['ps', '--connect', place]);
  const before = domsched(['--connect', place, 'ps']);
  t.regex(behind.stderr, /nothing\/there/);
  t.deepEqual(before, behind);
  const none = domsched(['--connect', place, 'layouts']);
  t.is(none.code, 2);
  t.regex(none.stderr, /unknown option '--connect'/);
});
