import test from 'ava';
import fc from 'fast-check';
import { findProcess } from '../../../runtime/guest/find-process.ts';
import type { Process } from '../../../runtime/guest/process.ts';
import {
  harmless,
  isNamed,
  jsonText,
  plainName,
  plainPattern,
  printable,
  printableBytes,
} from '../../../runtime/guest/text.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { ProcessView } from '../../../runtime/policy/world.ts';

/** What a process may be called: bytes of its name, and the text that they are where they are UTF-8. */
const NAMES: readonly (readonly [bytes: string, text: string | undefined])[] = [
  ['größe', 'größe'],
  ['a\nb', 'a\nb'],
  ['esc\x1b[2Jx', 'esc\x1b[2Jx'],
  ['q"u\\e', 'q"u\\e'],
  ['\\x41', '\\x41'],
  ['<b>x</b>', '<b>x</b>'],
  ['x\r\nX-H: 1', 'x\r\nX-H: 1'],
  ['\u202etxt', '\u202etxt'],
  ['\u{1f600}*', '\u{1f600}*'],
  ['', ''],
  [' ', ' '],
  ['__proto__', '__proto__'],
].map(([name, text]) => [Buffer.from(name!, 'utf8').toString('latin1'), text] as const);
/** No UTF-8: a cut character, stray bytes, an overlong slash, half a pair. */
const BROKEN = ['\xc3', '\xc4', '\xff\xfe', 'a\xc3(', '\xc0\xaf', '\xed\xa0\x80'];
const ALL = [...NAMES.map(([bytes]) => bytes), ...BROKEN];

test('every name is spelt in printable ASCII, comes back from it, and is in JSON as it is', (t) => {
  for (const [bytes, text] of NAMES) {
    const spelt = printableBytes(bytes);
    t.regex(spelt, /^[\x20-\x7e]*$/);
    t.is(plainName(spelt), text!);
    t.is(printable(text!), spelt, 'text of ours is spelt as bytes of a guest are');
    t.is(JSON.parse(jsonText([text]))[0], text!);
  }
});

test('names that are no UTF-8 stay apart, also through JSON', (t) => {
  const plain = ALL.map((bytes) => plainName(printableBytes(bytes)));
  t.is(new Set(plain).size, ALL.length);
  t.deepEqual(JSON.parse(jsonText(plain)), plain);
  // JSON is UTF-8 wherever it goes.
  t.deepEqual(JSON.parse(Buffer.from(jsonText(plain)).toString()), plain);
  t.deepEqual(plain.map(printable), ALL.map(printableBytes));
});

test('any bytes at all come back', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 16 }), (array) => {
        const bytes = Buffer.from(array).toString('latin1');
        const plain = plainName(printableBytes(bytes));
        return printable(plain) === printableBytes(bytes) && JSON.parse(jsonText([plain]))[0] === plain;
      }),
    ),
  );
});

test('nothing in a text of ours or in JSON makes a terminal do anything', (t) => {
  for (const text of [...NAMES.map(([, name]) => name!), '\u009b2J', '\u200f', '\u2028', '\ud800', '\xa0']) {
    const line = harmless(`µ ${text}`);
    t.notRegex(line, /[\x00-\x1f\x7f-\xa0\u200b-\u202e\u2028\u2029]|\p{Cs}/u, JSON.stringify(text));
    t.true(line.startsWith('µ '), 'letters stay');
    t.notRegex(jsonText([text]), /[\x00-\x09\x0b-\x1f\x7f-\xa0\u200b-\u202e\u2028\u2029]|\p{Cs}/u);
  }
});

const processes = ALL.map((bytes, i) => ({ pid: 100 + i, comm: printableBytes(bytes) }) as Process);

test('a process is found by its name and by the way tables spell it', (t) => {
  for (const [i, { comm, pid }] of processes.entries()) {
    const text = NAMES[i]?.[1];
    // One whose name is what another's is spelt as goes before it.
    if (processes.every((other) => other.pid === pid || plainName(other.comm) !== comm))
      t.is(findProcess('vm', processes, comm).pid, pid, comm);
    if (text !== undefined) t.is(findProcess('vm', processes, text).pid, pid, comm);
  }
  t.is(
    findProcess(
      'vm',
      [
        { pid: 1, comm: 'A' },
        { pid: 2, comm: '\\\\x41' },
      ] as Process[],
      '\\x41',
    ).pid,
    2,
  );
});

test('selectors fit names as they are and as tables spell them', (t) => {
  const fits = (comm: string | string[], process: Process) =>
    selector([{ comm }])(process as never as ProcessView);
  for (const process of processes.filter(({ comm }) => comm !== '')) {
    // A star stands for any characters: one that is meant is escaped, as ever.
    const typed = process.comm.replaceAll('*', '\\*');
    t.deepEqual(
      processes.filter((other) => fits(typed, other)),
      [process],
      process.comm,
    );
  }
  const [umlaut] = processes;
  for (const pattern of ['größe', 'gr*e', 'gr\\xc3\\xb6\\xc3\\x9fe', 'gr\\xc3\\xb6*'])
    t.true(fits(pattern, umlaut!), pattern);
  for (const pattern of [
    ['*', '!größe'],
    ['*', '!gr\\xc3\\xb6\\xc3\\x9fe'],
  ]) {
    t.false(fits(pattern, umlaut!), pattern.join());
    t.true(fits(pattern, processes[1]!), pattern.join());
  }
  const ofDomain = (domain: string) => selector([{ domain }])({ domainName: 'größe' } as ProcessView);
  for (const pattern of ['größe', 'gr\\xc3\\xb6\\xc3\\x9fe', 'gr\\xc3\\xb6*'])
    t.true(ofDomain(pattern), pattern);
  t.false(ofDomain('!gr\\xc3\\xb6*'));
  t.is(plainPattern('a\\*\\\\x41*'), 'a\\*\\\\x41*', 'what is escaped for the pattern stays');
  t.is(plainPattern('\\x2a\\x5c'), '\\*\\\\');
});

test('a domain is meant by its name and by the way tables show it', (t) => {
  const name = 'vm\u202e\n\\';
  t.true(isNamed(name, name));
  t.true(isNamed(name, printable(name)));
  t.false(isNamed('größe', 'grosse'));
  t.false(isNamed('a', 'a\\'));
});
