/** `node kernels/no-file.ts` writes the table of `docs/no-file.md` from the results of `test/soak/no-file.test.ts`. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { earlierIn, tableOf } from './earlier.ts';
import { projectDirectory } from './paths.ts';
import { suitesCache } from './suites.ts';

/** What one kernel showed. */
export interface NoFileRow {
  readonly release: string;
  readonly suite: string;
  /** Symbols that the guest's own /proc/kallsyms has, without modules; 0 if that was not reached. */
  symbols: number;
  /** How far the kernel was moved, in MiB. */
  slideMiB: number;
  /** `ok`, or what was found, by column. */
  readonly cells: Record<string, string>;
  readonly anomalies: string[];
}

const rows = path.join(suitesCache, 'no-file');
const document = path.join(projectDirectory, 'docs', 'no-file.md');
const [BEGIN, END] = ['<!-- table of `make no-file` -->', '<!-- end of the table -->'];
const COLUMNS = ['memory', 'image', 'used', 'layout', 'DWARF', 'ps'];
const HEAD = ['kernel', 'suite', 'symbols', 'moved by, MiB', ...COLUMNS];
const [SYMBOLS, MEMORY] = [HEAD.indexOf('symbols'), HEAD.indexOf('memory')];

export function noFileRow(release: string): string {
  return path.join(rows, `${release}.json`);
}

/** The document with a row for each of these in its table. Rows of other kernels stay as they are. */
export function withTable(text: string, seen: readonly NoFileRow[]): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${document} has no place for the table: ${BEGIN} … ${END}`);
  return `${text.slice(0, begin)}${BEGIN}\n\n${table(seen, text.slice(begin, end))}\n\n${text.slice(end)}`;
}

function table(seen: readonly NoFileRow[], before: string): string {
  const earlier = earlierIn(before, new Set(seen.map(({ release }) => release)));
  const rows = seen.map(({ release, suite, symbols, slideMiB, cells }) => [
    release,
    suite,
    symbols.toLocaleString('en'),
    String(slideMiB),
    ...COLUMNS.map((column) => cells[column] ?? '–'),
  ]);
  const problems = [
    ...earlier.remarks,
    ...seen.flatMap(({ release, anomalies }) =>
      anomalies.map((each) => `- ${release}: ${each.split('\n')[0]}`),
    ),
  ];
  const all = [...earlier.rows, ...rows];
  const clean = all.filter(([release]) => !problems.some((line) => line.startsWith(`- ${release}: `))).length;
  const sum = all.reduce(
    (count, cells) => count + (cells[MEMORY] === 'ok' ? Number(cells[SYMBOLS]!.replaceAll(',', '')) : 0),
    0,
  );
  return [
    tableOf(HEAD, ...all),
    `${clean} of ${all.length} kernels without a difference; ${sum.toLocaleString('en')} symbols in all.`,
    ...(problems.length > 0 ? [problems.join('\n')] : []),
  ].join('\n\n');
}

function readRows(): NoFileRow[] {
  if (!existsSync(rows)) return [];
  return readdirSync(rows).map(
    (name) => JSON.parse(readFileSync(path.join(rows, name), 'utf8')) as NoFileRow,
  );
}

if (import.meta.main) {
  await writeFile(document, withTable(await readFile(document, 'utf8'), readRows()));
  console.log(`docs/no-file.md: ${readRows().length} kernels`);
}
