import { type Command, InvalidArgumentError } from 'commander';
import { connectOption, READABLE } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { DEFAULT_CONFIG } from './run.ts';

/** Adds `blame` to the program. */
export function register(program: Command): void {
  program
    .command('blame')
    .description('say for whom a process, or all of a domain, was ready and did not run')
    .argument('[domain]', 'name or id of the domain; with --fleet it may be left out, or is host/domain')
    .argument(
      '[process]',
      'pid or name of the process, all that have it together; all of the domain when left out',
    )
    .option('--for <seconds>', 'how long to look; Ctrl-C ends it earlier with what there is', seconds, 10)
    .option('--interval <seconds>', 'how often to look', seconds, 0.25)
    .addOption(connectOption(READABLE))
    .option('--fleet', 'on all hosts of the fleet: each says what it finds, shares add up for each')
    .option('--host <names...>', 'with --fleet, of these hosts alone; * stands for any characters')
    .option(
      '-c, --config <file>',
      'configuration whose [fleet] says how to reach the other hosts',
      DEFAULT_CONFIG,
    )
    .option('--json', 'print JSON')
    .action(lazily(async () => (await import('./blame-run.ts')).blame));
}

/** The longest that a Node timer supports, in seconds. */
const LONGEST_S = 2_147_483;

/** Seconds, with or without their unit. */
function seconds(value: string): number {
  const parsed = Number(value.replace(/s$/, ''));
  if (parsed >= 0.01 && parsed <= LONGEST_S) return parsed;
  throw new InvalidArgumentError(`It is no number of seconds from 0.01 to ${LONGEST_S}.`);
}
