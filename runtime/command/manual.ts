import process from 'node:process';
import { Argument, type Command } from 'commander';

/** Adds `completion`, and `manual` for building the package. Their work is loaded when one runs. */
export function register(program: Command): void {
  program
    .command('completion')
    .description('print a script by which a shell completes domsched')
    .addArgument(new Argument('<shell>', 'whose').choices(['bash', 'zsh', 'fish']))
    .action(async (shell: 'bash' | 'zsh' | 'fish') => {
      const { completion } = await import('../manual/completion.ts');
      process.stdout.write(completion(program, shell));
    });
  program
    .command('manual', { hidden: true })
    .description('print the manual page')
    .action(async () => {
      const { manualPage } = await import('../manual/man-page.ts');
      process.stdout.write(manualPage(program));
    });
}
