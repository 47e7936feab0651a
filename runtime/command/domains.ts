import type { Command } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import { lazily } from './lazily.ts';

/** Adds `domains` to the program. */
export function register(program: Command): void {
  program
    .command('domains')
    .description('list the running domains with the kernel and the layout that each has, or why none')
    .addOption(connectOption(READABLE))
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./domains-run.ts')).domains));
}
