import { Argument, type Command } from 'commander';
import { lazily } from './lazily.ts';

/** Adds `fleet` to the program. */
export function register(program: Command): void {
  program
    .command('fleet')
    .description('say how this host stands in its fleet: the server, other hosts and what they do')
    .addArgument(new Argument('<what>', 'what to ask for').choices(['status']))
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./fleet-run.ts')).fleet));
}
