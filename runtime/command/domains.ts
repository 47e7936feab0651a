import type { Command } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import type { DomainsOptions } from './domains-run.ts';

/** Adds `domains` to the program. Its work is loaded when it runs, to keep the other commands quick. */
export function register(program: Command): void {
  program
    .command('domains')
    .description('list the running domains with the kernel and the layout that each has, or why none')
    .addOption(connectOption(READABLE))
    .option('--json', 'print JSON')
    .action(async (options: DomainsOptions) => {
      const { domains } = await import('./domains-run.ts');
      await domains(options);
    });
}
