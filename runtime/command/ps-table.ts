import type { ProcessRow } from '../control/control.ts';
import { printable } from '../guest/text.ts';
import { duration } from '../top/duration.ts';
import type { Listed } from './ps-order.ts';

const HEAD = ['DOMAIN', 'PID', 'PPID', 'CPU', 'STATE', 'NI', 'POLICY', 'TIME', 'THR', 'COMMAND'] as const;
/** Columns with numbers. */
const RIGHT = new Set<string>(['PID', 'PPID', 'CPU', 'NI', 'TIME', 'THR']);

/** Formats the list as a table, one line per process; each column is as wide as its widest cell. */
export function table(listed: readonly Listed<ProcessRow>[]): string {
  const lines = [[...HEAD], ...listed.map(cells)];
  const widths = HEAD.map((_, column) =>
    lines.reduce((most, line) => Math.max(most, line[column]!.length), 0),
  );
  const text = lines.map((line) =>
    line
      .map((cell, column) =>
        RIGHT.has(HEAD[column]!) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join(' ')
      .trimEnd(),
  );
  return `${text.join('\n')}\n`;
}

function cells({ process, depth }: Listed<ProcessRow>): string[] {
  const name = process.kernelThread ? `[${process.comm}]` : process.comm;
  return [
    printable(process.domain),
    String(process.pid),
    String(process.ppid),
    String(process.cpu),
    process.state,
    String(process.nice),
    process.policy,
    duration(process.utimeNs + process.stimeNs),
    String(process.threads),
    `${'  '.repeat(Math.min(depth, 40))}${name}`,
  ];
}
