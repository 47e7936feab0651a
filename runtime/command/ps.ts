import type { Command } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { DEFAULT_CONFIG } from './run.ts';

/** Adds `ps` to the program. */
export function register(program: Command): void {
  program
    .command('ps')
    .description('list the processes of all guests, or of one')
    .argument('[domain]', 'name or id of the domain; every one that is reachable when left out')
    .addOption(connectOption(READABLE))
    .option('--tree', 'children below their parents')
    .option('--threads', 'one line per thread')
    .option('--sort <key>', 'pid, cpu, time, nice, state, comm, start; with - before it the other way round')
    .option('--pause', 'pause each domain while it is read, for an exact picture')
    .option('--watch [seconds]', 'again and again, every 2 s by default')
    .option('--fleet', 'of all hosts of the fleet; a domain is named host/domain')
    .option(
      '-c, --config <file>',
      'configuration whose [fleet] says how to reach the other hosts',
      DEFAULT_CONFIG,
    )
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./ps-run.ts')).ps));
}
