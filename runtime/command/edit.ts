import { type Command, Option } from 'commander';
import { CHANGEABLE, connectOption } from './connect-option.ts';
import { lazily } from './lazily.ts';
import { number } from './numbers.ts';

/** Adds `hold`, `release` and `renice` to the program. */
export function register(program: Command): void {
  edit(program, 'hold', 'stop a process of a guest until it is released')
    .argument('<domain>', 'name or id of the domain')
    .argument('<process>', 'pid, or a name that only one process has')
    .addOption(
      new Option('--technique <name>', 'how to stop it')
        .choices(['auto', 'splice', 'state', 'park'])
        .default('auto'),
    )
    .option('--force', 'real-time processes, and those that serve storage, too')
    .action(lazily(async () => (await import('./edit-run.ts')).hold));
  edit(program, 'release', 'let a held process go on')
    .argument('[domain]', 'name or id of the domain')
    .argument('[process]', 'pid, or a name that only one process has')
    .option('--all', 'everything that is held, in all domains')
    .action(lazily(async () => (await import('./edit-run.ts')).release));
  edit(program, 'renice', 'give a process of a guest another nice value')
    .argument('<domain>', 'name or id of the domain')
    .argument('<process>', 'pid, or a name that only one process has')
    .argument('<nice>', '-20 (most of the CPU) to 19', number)
    .option('--group', 'the autogroup or control group of the process, with all in it, against other groups')
    .action(lazily(async () => (await import('./edit-run.ts')).renice));
}

function edit(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .addOption(connectOption(CHANGEABLE))
    .option('--dry-run', 'print what would be written, and write nothing')
    .option('--timeout <seconds>', 'how long to go on trying', number, 5)
    .option('--json', 'print JSON');
}
