import { type Command, Option } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { positive } from './numbers.ts';

/** Adds `trace` and `report` to the program. */
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
    .action(lazily(async () => (await import('./trace-run.ts')).trace));
  program
    .command('report')
    .description('draw a trace, or those of several hosts in one: who ran, waited and was held when, and why')
    .argument(
      '<files...>',
      'what domsched trace, or the daemon, wrote; several become one picture by the time of day',
    )
    .option(
      '-o, --output <file>',
      'where to, - for standard output; the name of the (first) trace with .html or .svg',
    )
    .addOption(
      new Option('--format <format>', 'by the name of the output when left out').choices(['html', 'svg']),
    )
    .option('--rows <n>', 'processes with a row of their own at most', positive, 40)
    .action(lazily(async () => (await import('./report-run.ts')).report));
}
