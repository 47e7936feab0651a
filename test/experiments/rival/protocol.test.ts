import test from 'ava';
import fc from 'fast-check';
import { AgentLines, parseAgentLine } from './protocol.ts';

test('an agent’s lines are read: its guest, and who is runnable', (t) => {
  t.deepEqual(parseAgentLine('hello u1'), { type: 'hello', guest: 'u1' });
  t.deepEqual(parseAgentLine('look'), { type: 'look', runnable: [] });
  t.deepEqual(parseAgentLine('look 12:u:pi1 9:k:kworker/0:1-ev'), {
    type: 'look',
    runnable: [
      { pid: 12, comm: 'pi1', isKernel: false },
      { pid: 9, comm: 'kworker/0:1-ev', isKernel: true },
    ],
  });
});

test('what no agent sends is refused as a whole', (t) => {
  const bad = [
    ...['', 'stop 1', 'hello', 'hello ', 'hello a b', 'hello ../u1', `hello ${'u'.repeat(21)}`],
    ...[
      'look ',
      'look 0:u:pi1',
      'look -1:u:pi1',
      'look 99999999:u:pi1',
      'look 4194305:u:pi1',
      'look 1:x:pi1',
    ],
    ...['look 1:u:', 'look 1:u:pi1 ', 'look 1:u:a\tb', `look 1:u:${'a'.repeat(17)}`, 'look 1e3:u:pi1'],
    ...[`look${' 1:u:a'.repeat(65)}`, `look${' 1234567:u:abcdefghijklmnop'.repeat(200)}`],
  ];
  for (const line of bad) t.is(parseAgentLine(line), undefined, line.slice(0, 40));
});

test('whatever pieces come, what is read is within its limits', (t) => {
  const piece = fc.constantFrom(
    'look',
    'hello',
    ' ',
    ':',
    'u',
    'k',
    '1',
    '9999999',
    '\n',
    'pi1',
    '\0',
    'é',
    'x'.repeat(999),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 200 }), (pieces) => {
      const lines = new AgentLines();
      for (const chunk of pieces)
        for (const line of lines.push(chunk) ?? []) {
          const heard = parseAgentLine(line);
          if (heard?.type !== 'look') continue;
          if (heard.runnable.length > 64) return false;
          if (!heard.runnable.every(({ pid, comm }) => pid <= 2 ** 22 && comm.length <= 16)) return false;
        }
      return true;
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('lines come in any pieces; one without an end is given up', (t) => {
  const lines = new AgentLines();
  t.deepEqual(lines.push('hel'), []);
  t.deepEqual(lines.push('lo u1\nlook 1:u:a\nlo'), ['hello u1', 'look 1:u:a']);
  t.deepEqual(lines.push('ok\n'), ['look']);
  t.deepEqual(lines.push('x'.repeat(4_096)), []);
  t.is(lines.push('x'), undefined);
});
