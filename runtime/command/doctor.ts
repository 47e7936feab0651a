import type { Command } from 'commander';
import { connectOption } from './connect-option.ts';
import { lazily } from './lazily.ts';

/** Adds `doctor` to the program. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('say what works on this host and what is missing')
    .addOption(connectOption('look at these places only (repeatable)'))
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./doctor-run.ts')).doctor));
}
