import type { Command } from 'commander';
import { connectOption } from './connect-option.ts';
import type { DoctorOptions } from './doctor-run.ts';

/** Adds `doctor` to the program. Its work is loaded when it runs, to keep the other commands quick. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('say what works on this host and what is missing')
    .addOption(connectOption('look at these places only (repeatable)'))
    .option('--json', 'print JSON')
    .action(async (options: DoctorOptions) => {
      const { doctor } = await import('./doctor-run.ts');
      await doctor(options);
    });
}
