import { writeFile } from 'node:fs/promises';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { DomschedError } from '../error.ts';
import { printable } from '../guest/text.ts';
import { collect } from '../report/collect.ts';
import { html } from '../report/html.ts';
import { timelineSvg } from '../report/timeline-svg.ts';
import { openTrace } from '../trace/read.ts';

export interface ReportOptions {
  output?: string;
  format?: 'svg' | 'html';
  rows: number;
}

/**
 * Runs `domsched report`.
 * @throws DomschedError `trace-invalid`; `usage` if the picture cannot be written
 */
export async function report(file: string, options: ReportOptions): Promise<void> {
  const format = options.format ?? (options.output?.endsWith('.svg') ? 'svg' : 'html');
  const output = options.output ?? `${file}.${format}`;
  const trace = await openTrace(file);
  const history = await collect(trace.ticks());
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
  const { ticks, rows, domains } = history;
  process.stdout.write(
    `${printable(pathToFileURL(output).href)}: ${ticks} samples, ${domains.length} domains, ${rows.length} processes\n`,
  );
}
