/**
 * What a document of ours says of kernels that were not tried this time: who tries one kernel on a new machine keeps the
 * others' rows.
 */
export interface KeptRows {
  /** Cells of the table's rows. The first is the kernel's title. */
  readonly rows: readonly (readonly string[])[];
  /** Lines of lists that begin with a title: `- TITLE: …` or `- TITLE, …`. */
  readonly remarks: readonly string[];
}

/** @param tried titles of the kernels that are told of anew */
export function earlierIn(text: string, tried: ReadonlySet<string>): KeptRows {
  const lines = text.split('\n');
  const rows = lines
    .filter((line) => /^\| .* \|$/.test(line))
    .map((line) => line.slice(2, -2).split(' | '))
    .filter(([title = '']) => /^\d/.test(title) && !tried.has(title));
  const titles = new Set(rows.map(([title]) => title));
  return { rows, remarks: lines.filter((line) => titles.has(titleOf(line))) };
}

/** The kernel that a remark is of; empty if a line is none. */
export function titleOf(remark: string): string {
  return /^- ([^,:]+)[,:] /.exec(remark)?.[1] ?? '';
}

/** Rows of all, in the order of the kernels' releases. */
export function tableOf(head: readonly string[], ...rows: readonly (readonly string[])[]): string {
  const sorted = rows.toSorted(([a = ''], [b = '']) => a.localeCompare(b, 'en', { numeric: true }));
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [head, head.map(() => '---'), ...sorted].map(line).join('\n');
}
