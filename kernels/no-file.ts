/** `node kernels/no-file.ts` writes the table of `docs/no-file.md` from the results of `test/soak/no-file.test.ts`. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
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

export function noFileRow(release: string): string {
  return path.join(rows, `${release}.json`);
}

/** The document with the table of these rows in its place. */
export function withTable(text: string, seen: readonly NoFileRow[]): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${document} has no place for the table: ${BEGIN} … ${END}`);
  return `${text.slice(0, begin)}${BEGIN}\n\n${table(seen)}\n\n${text.slice(end)}`;
}

function table(seen: readonly NoFileRow[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const head = ['kernel', 'suite', 'symbols', 'moved by, MiB', ...COLUMNS];
  const lines = [line(head), line(head.map(() => '---'))];
  for (const { release, suite, symbols, slideMiB, cells } of seen) {
    const found = COLUMNS.map((column) => cells[column] ?? '–');
    lines.push(line([release, suite, symbols.toLocaleString('en'), String(slideMiB), ...found]));
  }
  const sum = seen.reduce((all, { symbols, cells }) => all + (cells.memory === 'ok' ? symbols : 0), 0);
  const clean = seen.filter(({ anomalies }) => anomalies.length === 0).length;
  const problems = seen.flatMap(({ release, anomalies }) =>
    anomalies.map((each) => `- ${release}: ${each.split('\n')[0]}`),
  );
  return [
    lines.join('\n'),
    `${clean} of ${seen.length} kernels without a difference; ${sum.toLocaleString('en')} symbols in all.`,
    ...(problems.length > 0 ? [problems.join('\n')] : []),
  ].join('\n\n');
}

function readRows(): NoFileRow[] {
  if (!existsSync(rows)) return [];
  return readdirSync(rows)
    .map((name) => JSON.parse(readFileSync(path.join(rows, name), 'utf8')) as NoFileRow)
    .sort((a, b) => a.release.localeCompare(b.release, 'en', { numeric: true }));
}

if (import.meta.main) {
  await writeFile(document, withTable(await readFile(document, 'utf8'), readRows()));
  console.log(`docs/no-file.md: ${readRows().length} kernels`);
}
