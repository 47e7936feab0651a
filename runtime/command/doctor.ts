import type { Command } from 'commander';

export interface DoctorOptions {
  connect?: string[];
  json?: true;
}

/** Adds `doctor` to the program. Its work is loaded when the command runs, to keep the others quick. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('say what works on this host and what is missing')
    .option(
      '--connect <place>',
      'look at these places only (repeatable)',
      (value: string, before: string[] = []) => [...before, value],
    )
    .option('--json', 'print JSON')
    .action(async (options: DoctorOptions) => {
      const { doctor } = await import('./doctor-run.ts');
      await doctor(options);
    });
}
