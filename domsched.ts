#!/usr/bin/env -S node --min-semi-space-size=16
// Room for young objects from the start: growing it step by step is a tenth of a short command's time.
import { createRequire } from 'node:module';
import process from 'node:process';

/** As in package.json: an older Node fails somewhere in the middle, and nobody would know why. */
const OLDEST_NODE = 24;

/** Whether this is the compiled program. */
const isCompiled = !import.meta.url.endsWith('.ts');

async function main(typed: string[]): Promise<number> {
  if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE) {
    process.stderr.write(
      `domsched: needs Node.js ${OLDEST_NODE} or later; this is ${process.versions.node}\n`,
    );
    return 1;
  }
  // What is needed now and then only is loaded then: it would cost each short command some milliseconds.
  const isOptionFirst = typed[2]?.startsWith('-') ?? false;
  const argv = isOptionFirst
    ? (await import('./runtime/command/connect-first.ts')).connectBehindCommand(typed)
    : typed;
  const { makeProgram } = isCompiled && argv[2] === 'extract' ? bundled() : await import('./program.ts');
  const program = await makeProgram(argv[2]);
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return await report(error);
  }
}

/** What bundle.ts made of the program and the extractor: for an extraction one file is a tenth quicker than sixty. */
function bundled(): typeof import('./program.ts') {
  return createRequire(import.meta.url)('./bundle/program.cjs');
}

/** Known errors print their message; anything else is our bug and prints its stack. */
async function report(error: unknown): Promise<number> {
  // Commander has printed its own message; 2 is wrong usage, 0 for --help and --version.
  if (error instanceof Error && 'exitCode' in error && error.name === 'CommanderError') {
    return error.exitCode === 0 ? 0 : 2;
  }
  const { KnownError } = await import('./extractor/known-error.ts');
  if (error instanceof KnownError) {
    const { harmless } = await import('./runtime/guest/text.ts');
    // A configuration is the operator's own text, and each of its problems has a line.
    const lines = error.code === 'config-invalid' ? error.message.split('\n') : [error.message];
    process.stderr.write(`domsched: ${lines.map(harmless).join('\n')} [${error.code}]\n`);
    return error.exitCode;
  }
  process.stderr.write(`domsched: internal error: ${error instanceof Error ? error.stack : String(error)}\n`);
  return 1;
}

/** For whoever has no handler of its own: what cannot be printed is told in one line, and a reader that left is not missed. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (process.stdout.listenerCount('error') > 1) return;
  if (error.code === 'EPIPE') process.exit();
  process.stderr.write(`domsched: standard output cannot be written: ${error.message} [output-failed]\n`);
  process.exit(1);
});

process.exitCode = await main(process.argv);
