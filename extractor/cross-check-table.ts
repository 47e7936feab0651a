import Table from 'cli-table3';
import type { EngineComparison } from './cross-check.ts';

/** The comparison for a person: a table, then up to `shown` disagreements a line each. */
export function crossCheckTable(rows: readonly EngineComparison[], shown: number): string {
  const table = new Table({
    head: ['engine', 'structures', 'members', 'enumerators', 'ms', 'compared with', 'disagreements'],
    style: { head: [], border: [] },
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left', 'right'],
  });
  for (const row of rows) {
    if (row.unavailable !== null)
      table.push([row.engine, { colSpan: 6, content: `not used: ${row.unavailable}` }]);
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
  const lines = rows.flatMap(({ engine, against, disagreements }) =>
    disagreements.map(
      ({ where, property, first, second }) =>
        `${where}: ${property} is ${first} (${against}), ${second} (${engine})`,
    ),
  );
  const rest = lines.length - shown;
  return [table.toString(), ...lines.slice(0, shown), ...(rest > 0 ? [`and ${rest} more`] : []), ''].join(
    '\n',
  );
}
