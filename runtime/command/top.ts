import type { Command } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { positive } from './numbers.ts';
import { DEFAULT_CONFIG } from './run.ts';

/** Adds `top` to the program. */
export function register(program: Command): void {
  program
    .command('top')
    .description('show the busiest processes of all guests, and who is held, until q')
    .option('--sort <key>', 'cpu, time, held, domain, pid, name, nice', 'cpu')
    .option('--interval <seconds>', 'how often to look; the daemon, where one runs, has its own', positive, 1)
    .option('-n, --count <pictures>', 'end after so many', positive)
    .option('--fleet', 'of all hosts of the fleet; a domain is named host/domain')
    .option(
      '-c, --config <file>',
      'configuration whose [fleet] says how to reach the other hosts',
      DEFAULT_CONFIG,
    )
    .option('--json', 'print each picture as one line of JSON')
    .addOption(connectOption(`${READABLE}; the daemon is not asked then`))
    .action(lazily(async () => (await import('./top-run.ts')).top));
}
