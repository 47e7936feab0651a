import { Command } from 'commander';
import { version } from './runtime/version.ts';

interface CommandRoom {
  register(program: Command): void;
}

/** Each with its commands, to load no other where one of them is named. */
const ROOMS: readonly { commands: readonly string[]; load: () => Promise<CommandRoom> }[] = [
  { commands: ['extract'], load: loadExtract },
  { commands: ['layouts'], load: () => import('./runtime/command/layouts.ts') },
  { commands: ['domains'], load: () => import('./runtime/command/domains.ts') },
  { commands: ['ps'], load: () => import('./runtime/command/ps.ts') },
  { commands: ['hold', 'release', 'renice'], load: () => import('./runtime/command/edit.ts') },
  { commands: ['blame'], load: () => import('./runtime/command/blame.ts') },
  { commands: ['top'], load: () => import('./runtime/command/top.ts') },
  { commands: ['fleet'], load: () => import('./runtime/command/fleet.ts') },
  { commands: ['trace', 'report'], load: () => import('./runtime/command/trace.ts') },
  { commands: ['run', 'check-config'], load: () => import('./runtime/command/run.ts') },
  { commands: ['weight', 'cap'], load: () => import('./runtime/command/share.ts') },
  { commands: ['doctor'], load: () => import('./runtime/command/doctor.ts') },
  // These tell of all the others.
  { commands: [], load: () => import('./runtime/command/manual.ts') },
];

/** The extractor knows neither domains nor generated code: a guest's memory and the code generator are brought to it. */
async function loadExtract(): Promise<CommandRoom> {
  const { register } = await import('./extractor/command.ts');
  const memoryOf = async (domain: string, connect: readonly string[]) => {
    const { memoryOf: read } = await import('./runtime/command/memory-of.ts');
    return read(domain, connect);
  };
  const modules = () => import('./codegen/index.ts');
  return { register: (program) => register(program, { memoryOf, modules }) };
}

/**
 * The whole program: what `domsched --help`, the manual page and the completion of shells are made of.
 * @param command the one that will run: where there is such a command, the program has no more than its room
 */
export async function makeProgram(command?: string): Promise<Command> {
  const program = new Command('domsched')
    .description('Schedules the processes of all virtual machines of a host, from the host.')
    .usage('[--connect <place>] <command> [options]')
    .version(version())
    .showHelpAfterError('(domsched --help lists the commands)')
    .exitOverride();
  const its = ROOMS.filter(({ commands }) => commands.includes(command ?? ''));
  const rooms = await Promise.all((its.length > 0 ? its : ROOMS).map(({ load }) => load()));
  for (const room of rooms) room.register(program);
  return program;
}
