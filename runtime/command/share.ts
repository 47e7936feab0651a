import { type Command, InvalidArgumentError } from 'commander';
import { CHANGEABLE, connectOption } from './connect-option.ts';
import type { ShareOptions } from './share-run.ts';

/** Adds `weight` and `cap` to the program. Their work is loaded when one runs. */
export function register(program: Command): void {
  share(program, 'weight', "show or set a domain's share of CPU time, relative to the others")
    .argument('<domain>', 'name or id of the domain')
    .argument('[weight]', 'a domain with 512 gets twice what one with 256 gets; shown when left out', number)
    .action(async (domain: string, weight: number | undefined, options: ShareOptions) => {
      const { share: run } = await import('./share-run.ts');
      await run(domain, weight === undefined ? {} : { weight }, options);
    });
  share(program, 'cap', 'show or set how much CPU time a domain gets at most')
    .argument('<domain>', 'name or id of the domain')
    .argument('[percent]', 'percent of one CPU, 0 for no limit; shown when left out', number)
    .action(async (domain: string, cap: number | undefined, options: ShareOptions) => {
      const { share: run } = await import('./share-run.ts');
      await run(domain, cap === undefined ? {} : { cap }, options);
    });
}

function share(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .addOption(connectOption(CHANGEABLE))
    .option('--json', 'print JSON');
}

function number(value: string): number {
  const parsed = Number(value);
  if (value.trim() === '' || !Number.isInteger(parsed)) {
    throw new InvalidArgumentError('It is no whole number.');
  }
  return parsed;
}
