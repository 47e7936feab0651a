import { type Command, InvalidArgumentError } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import type { ReportOptions } from './report-run.ts';
import type { TraceOptions } from './trace-run.ts';

/** Adds `trace` and `report` to the program. Their work is loaded when one runs. */
export function register(program: Command): void {
  program
    .command('trace')
    .description('record which process of which guest ran when, until interrupted')
    .option('-o, --output <file>', 'where to; an older trace there becomes FILE.1', 'domsched.trace')
    .option('--for <seconds>', 'how long', positive)
    .option(
      '--interval <seconds>',
      'how often to look; the daemon, where one runs, has its own',
      positive,
      0.5,
    )
    .option('--max-size <MiB>', 'of the file and its older part together', positive, 64)
    .addOption(connectOption(`${READABLE}; the daemon is not asked then`))
    .action(async (options: TraceOptions) => {
      const { trace } = await import('./trace-run.ts');
      await trace(options);
    });
  program
    .command('report')
    .description('draw a trace: who ran, waited and was held when, and why')
    .argument('<file>', 'what domsched trace, or the daemon, wrote')
    .option(
      '-o, --output <file>',
      'where to, - for standard output; the name of the trace with .html or .svg',
    )
    .option('--format <format>', 'html or svg; by the name of the output when left out', format)
    .option('--rows <n>', 'processes with a row of their own at most', positive, 40)
    .action(async (file: string, options: ReportOptions) => {
      const { report } = await import('./report-run.ts');
      await report(file, options);
    });
}

function positive(value: string): number {
  const parsed = Number(value);
  if (!(parsed > 0) || !Number.isFinite(parsed)) throw new InvalidArgumentError('It is no positive number.');
  return parsed;
}

function format(value: string): string {
  if (value !== 'svg' && value !== 'html') throw new InvalidArgumentError('It is neither svg nor html.');
  return value;
}
