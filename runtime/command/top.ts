import { type Command, InvalidArgumentError } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import type { TopOptions } from './top-run.ts';

/** Adds `top` to the program. Its work is loaded when it runs. */
export function register(program: Command): void {
  program
    .command('top')
    .description('show the busiest processes of all guests, and who is held, until q')
    .option('--sort <key>', 'cpu, time, held, domain, pid, name, nice', 'cpu')
    .option('--interval <seconds>', 'how often to look; the daemon, where one runs, has its own', positive, 1)
    .option('-n, --count <pictures>', 'end after so many', positive)
    .addOption(connectOption(`${READABLE}; the daemon is not asked then`))
    .action(async (options: TopOptions) => {
      const { top } = await import('./top-run.ts');
      await top(options);
    });
}

function positive(value: string): number {
  const parsed = Number(value);
  if (!(parsed > 0) || !Number.isFinite(parsed)) throw new InvalidArgumentError('It is no positive number.');
  return parsed;
}
