import Table from 'cli-table3';
import type { EngineComparison } from './cross-check.ts';
import type { Unknowable } from './engine.ts';

/** What the debug information lacks, for people. */
export const WHY: Readonly<Record<Unknowable, string>> = {
  dimensions: 'one of them knows the number of elements only, not the dimensions',
  'array-bounds': 'one of them does not tell [0] from []',
  prototypes: 'one of them does not tell () from (void)',
  atomics: 'one of them leaves _Atomic out',
  'char-sign': 'one of them does not say whether char is signed',
  'enum-sign': 'one of them does not say which enumerations are signed',
};

/** The comparison for people: a table, then up to `shown` disagreements, one per line. */
export function crossCheckTable(rows: readonly EngineComparison[], shown: number): string {
  const table = new Table({
    head: ['engine', 'structures', 'members', 'enumerators', 'ms', 'compared with', 'disagreements'],
    style: { head: [], border: [] },
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left', 'right'],
  });
  for (const row of rows) {
    if (row.unavailable !== null)
      table.push([row.engine, { colSpan: 6, hAlign: 'left', content: `not used: ${row.unavailable}` }]);
    else {
      table.push([
        row.engine,
        row.structs,
        row.members,
        row.enumerators,
        row.ms,
        row.against ?? '-',
        row.against ? row.disagreements.length : '-',
      ]);
    }
  }
  const silent = rows.flatMap(({ engine, against, notCompared }) =>
    [...Map.groupBy(notCompared, ({ because }) => because)].map(
      ([because, facts]) =>
        `not compared: ${facts.length} ${facts.length === 1 ? 'fact' : 'facts'} of ${engine} and ${against}, since ${WHY[because]} (${facts[0]!.where} ` +
        `is ${facts[0]!.first} and ${facts[0]!.second})`,
    ),
  );
  const lines = rows.flatMap(({ engine, against, disagreements }) =>
    disagreements.map(
      ({ where, property, first, second }) =>
        `${where}: ${property} is ${first} (${against}), ${second} (${engine})`,
    ),
  );
  const rest = lines.length - shown;
  return [
    table.toString(),
    ...silent,
    ...lines.slice(0, shown),
    ...(rest > 0 ? [`and ${rest} more`] : []),
    '',
  ].join('\n');
}
