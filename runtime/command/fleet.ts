import { Argument, type Command } from 'commander';
import { POLICY_ACTIONS } from './fleet-options.ts';
import { lazily } from './lazily.ts';
import { DEFAULT_CONFIG } from './run.ts';

/** Adds `fleet` to the program. */
export function register(program: Command): void {
  program
    .command('fleet')
    .description(
      'say how this host stands in its fleet (status), or read and change the one policy of all hosts (policy)',
    )
    .addArgument(new Argument('<what>', 'what it is about').choices(['status', 'policy']))
    .addArgument(new Argument('[action]', 'what to do with the policy').choices(POLICY_ACTIONS))
    .argument('[file]', 'the policy to set or check, - for the input; for get and rollback a revision')
    .option('-c, --config <file>', 'configuration whose [fleet] says how to reach it', DEFAULT_CONFIG)
    .option('-m, --comment <text>', 'why a policy is set, for its history', '')
    .option('--force', 'set a policy though hosts say that they cannot use it; they keep the one before')
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./fleet-run.ts')).fleet));
}
