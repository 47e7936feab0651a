import { Command } from 'commander';
import { version } from './runtime/version.ts';

/** The whole program: what `domsched --help`, the manual page and the completion of shells are made of. */
export async function makeProgram(): Promise<Command> {
  const program = new Command('domsched')
    .description('Schedules the processes of all virtual machines of a host, from the host.')
    .version(version())
    .showHelpAfterError('(domsched --help lists the commands)')
    .exitOverride();
  const rooms = await Promise.all([
    import('./extractor/command.ts'),
    import('./runtime/command/layouts.ts'),
    import('./runtime/command/domains.ts'),
    import('./runtime/command/ps.ts'),
    import('./runtime/command/edit.ts'),
    import('./runtime/command/top.ts'),
    import('./runtime/command/trace.ts'),
    import('./runtime/command/run.ts'),
    import('./runtime/command/share.ts'),
    import('./runtime/command/doctor.ts'),
    import('./runtime/command/manual.ts'),
  ]);
  for (const room of rooms) room.register(program);
  return program;
}
