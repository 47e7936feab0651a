import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { DomschedError } from '../error.ts';
import { printable } from '../guest/text.ts';
import { collect } from '../report/collect.ts';
import { html } from '../report/html.ts';
import { type HostHistory, merge } from '../report/merge.ts';
import { timelineSvg } from '../report/timeline-svg.ts';
import { openTrace } from '../trace/read.ts';

const LONGEST_NAME = 64;

export interface ReportOptions {
  output?: string;
  format?: 'svg' | 'html';
  rows: number;
}

/**
 * Runs `domsched report`.
 * @throws DomschedError `trace-invalid`; `usage` if the picture cannot be written
 */
export async function report(files: string[], options: ReportOptions): Promise<void> {
  const format = options.format ?? (options.output?.endsWith('.svg') ? 'svg' : 'html');
  const output = options.output ?? `${files[0]}.${format}`;
  const traced: HostHistory[] = [];
  for (const file of files) {
    const { header, ticks } = await openTrace(file);
    const host = printable(header.host ?? path.parse(file).name).slice(0, LONGEST_NAME);
    traced.push({ host, history: await collect(ticks()) });
  }
  const history = traced.length === 1 ? traced[0]!.history : merge(traced);
  const text = format === 'svg' ? timelineSvg(history, options.rows) : html(history, options.rows);
  if (output === '-') {
    process.stdout.write(text);
    return;
  }
  try {
    await writeFile(output, text);
  } catch (error) {
    const text = `the report cannot be written: ${(error as Error).message}`;
    throw new DomschedError('usage', text, { output }, { cause: error });
  }
  const { ticks, rows, domains, hosts } = history;
  const from = hosts === undefined ? '' : ` of ${hosts.join(', ')}`;
  process.stdout.write(
    `${printable(pathToFileURL(output).href)}: ${ticks} samples${from}, ${domains.length} domains, ${rows.length} processes\n`,
  );
}
