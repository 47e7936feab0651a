#!/usr/bin/env -S node --min-semi-space-size=16
// Room for young objects from the start: growing it step by step is a tenth of a short command's time.
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { Command, CommanderError } from 'commander';

/** Where package.json is: beside this file in a checkout, one level up once compiled into `dist/`. */
const packageUrl = new URL(
  import.meta.url.endsWith('.ts') ? 'package.json' : '../package.json',
  import.meta.url,
);

async function main(argv: string[]): Promise<number> {
  const { version } = JSON.parse(readFileSync(packageUrl, 'utf8')) as { version: string };
  const program = new Command('domsched')
    .description('Schedules the processes of all virtual machines of a host, from the host.')
    .version(version)
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
  ]);
  for (const room of rooms) room.register(program);
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return report(error);
  }
}

/** Known errors print one line; anything else is our bug and prints its stack. */
function report(error: unknown): number {
  // Commander has printed its own message; 2 is wrong usage, 0 for --help and --version.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof Error && 'code' in error && 'details' in error) {
    process.stderr.write(`domsched: ${error.message} [${String(error.code)}]\n`);
    return 'exitCode' in error ? Number(error.exitCode) : 1;
  }
  process.stderr.write(`domsched: internal error: ${error instanceof Error ? error.stack : String(error)}\n`);
  return 1;
}

process.exitCode = await main(process.argv);
