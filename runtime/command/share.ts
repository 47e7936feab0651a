import type { Command } from 'commander';
import { CHANGEABLE, connectOption } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { whole } from './numbers.ts';

/** Adds `weight` and `cap` to the program. */
export function register(program: Command): void {
  share(program, 'weight', "show or set a domain's share of CPU time, relative to the others")
    .argument('<domain>', 'name or id of the domain')
    .argument('[weight]', 'a domain with 512 gets twice what one with 256 gets; shown when left out', whole)
    .action(lazily(async () => (await import('./share-run.ts')).weight));
  share(program, 'cap', 'show or set how much CPU time a domain gets at most')
    .argument('<domain>', 'name or id of the domain')
    .argument('[percent]', 'percent of one CPU, 0 for no limit; shown when left out', whole)
    .action(lazily(async () => (await import('./share-run.ts')).cap));
}

function share(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .addOption(connectOption(CHANGEABLE))
    .option('--json', 'print JSON');
}
