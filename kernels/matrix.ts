/** `node kernels/matrix.ts` writes `docs/kernels.md` from the results of live trials on the suites' kernels. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { earlierIn, tableOf, titleOf } from './earlier.ts';
import { projectDirectory } from './paths.ts';
import { type ExtractionCost, extractionOf, suiteKernels, suitesCache } from './suites.ts';

/** Results for one kernel. */
export interface MatrixRow {
  /** Its release, and how it was booted if unusual. */
  readonly title: string;
  readonly suite: string;
  /** `ok`, `refused`, `failed`, or what was done, by column. */
  readonly cells: Record<string, string>;
  /** Reasons by technique. */
  readonly refused: Record<string, string>;
  holds: number;
  readonly anomalies: string[];
  seconds: number;
}

const rows = path.join(suitesCache, 'matrix');
const document = path.join(projectDirectory, 'docs', 'kernels.md');
const COLUMNS = ['attach', 'ps', 'park', 'splice', 'state', 'nice', 'group', 'calls', 'daemon', 'console'];

export function rowFile(title: string): string {
  return path.join(rows, `${title.replaceAll(' ', '_')}.json`);
}

/**
 * The document's text.
 * @param before the text as it was: what it says of other kernels stays
 */
export function matrix(
  seen: readonly MatrixRow[],
  extractions: ReadonlyMap<string, ExtractionCost>,
  before = '',
): string {
  const titles = new Set(seen.map(({ title }) => title));
  const [refusedBefore = '', anomaliesBefore = ''] = before.split(ANOMALIES);
  const earlier = earlierIn(before, titles);
  const rows = seen.map(({ title, suite, cells, holds, seconds }) => {
    const extraction = extractions.get(title.split(' ')[0]!);
    const extract =
      extraction === undefined
        ? '?'
        : `${extraction.structures} structures, ${extraction.symbols} symbols, ${extraction.seconds.toFixed(1)} s`;
    const copies = cells.copies === undefined ? '' : `, ${cells.copies}`;
    const values = COLUMNS.map((column) => cells[column] ?? '–').map((value, index) =>
      COLUMNS[index] === 'calls' ? `${value}${copies}` : value,
    );
    return [title, suite, extract, ...values, String(holds), seconds.toFixed(0)];
  });
  const reasons = seen.flatMap(({ title, refused }) =>
    Object.entries(refused).map(([technique, reason]) => `- ${title}, ${technique}: ${reason}`),
  );
  const anomalies = seen.flatMap(({ title, anomalies: all }) =>
    all.map((each) => `- ${title}: ${each.split('\n')[0]}`),
  );
  const remarks = (text: string, more: readonly string[]) =>
    [...earlier.remarks.filter((line) => text.includes(`${line}\n`)), ...more]
      .toSorted((a, b) => titleOf(a).localeCompare(titleOf(b), 'en', { numeric: true }))
      .join('\n');
  return [
    INTRODUCTION,
    tableOf(['kernel', 'suite', 'extract', ...COLUMNS, 'holds', 'seconds'], ...earlier.rows, ...rows),
    '## What is refused, and why',
    remarks(refusedBefore, reasons) || 'Nothing.',
    ANOMALIES,
    remarks(anomaliesBefore, anomalies) || 'None.',
    '',
  ].join('\n\n');
}

const ANOMALIES = '## Anomalies';

const INTRODUCTION = `# Kernels

Written by \`make kernels-matrix\`: kernels of all of Debian's suites, the newest point release of each series, from the
packed image alone. Each was booted under QEMU with two vCPUs; \`extract\` is the layout out of the image, \`attach\` the proof
of it on the guest's memory, \`ps\` is held against the guest's own /proc. \`park\`, \`splice\` and \`state\` are holds and releases
of threads that ran, were ready, slept, or were in long system calls, by what they did when they were chosen; \`nice\` and
\`group\` are by the guest's own word. \`calls\` is dd, held and released while it copies 16 MiB from /dev/urandom and
through a pipe: compared byte for byte; and a loop of such copies that goes on beside the other holds, in which a dd is held with
the other programs in every third round of park. \`daemon\` is a policy \`idle-only\`. A program of the guest checks its own long system
calls all the while, and the console has to stay clean. Two of the burners are in groups within a group. With DOMSCHED_WAYS=splice,state
there are more holds by these ways, in a guest booted for them alone; they are counted in the row. A dash is what was not tried
since it changed, and a kernel that was not tried again keeps its line.`;

function readRows(): MatrixRow[] {
  if (!existsSync(rows)) return [];
  return readdirSync(rows)
    .filter((name) => name.endsWith('.json'))
    .map((name) => JSON.parse(readFileSync(path.join(rows, name), 'utf8')) as MatrixRow);
}

if (import.meta.main) {
  const extractions = new Map(
    suiteKernels().flatMap((kernel) => {
      const extraction = extractionOf(kernel);
      return extraction === null ? [] : [[kernel.release, extraction] as const];
    }),
  );
  await writeFile(document, matrix(readRows(), extractions, await readFile(document, 'utf8')));
  console.log(`docs/kernels.md: ${readRows().length} kernels`);
}
