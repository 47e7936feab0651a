import type { Command } from 'commander';
import { Option } from 'commander';

/** Adds `extract` to the program. The implementation is loaded when the command runs, to keep the others quick. */
export function register(program: Command): void {
  program
    .command('extract')
    .description('read the structure layouts of a guest kernel and generate typed modules from them')
    .argument('<file>', 'vmlinux, vmlinuz, debug file or BTF, packed or not')
    .addOption(
      new Option('--engine <name>', 'what reads the file')
        .choices(['auto', 'dwarf', 'btf', 'gdb'])
        .default('auto')
        // It takes them all.
        .conflicts('crossCheck'),
    )
    .addOption(
      new Option(
        '--struct <name...>',
        "these structures; modules get them besides the scheduler's",
      ).conflicts('all'),
    )
    .option('--all', 'every structure of the kernel')
    .option(
      '--json <file>',
      'write the layout as JSON to a file, or to standard output for -; generates nothing',
    )
    .addOption(new Option('--format <name>', 'of the JSON').choices(['domsched', 'isf']).default('domsched'))
    .addOption(
      new Option('--check', 'write nothing; fail with the differences from the generated modules').conflicts([
        'json',
        'crossCheck',
      ]),
    )
    .option('--cross-check', 'write nothing; compare every engine that can read the file, member by member')
    .option('--out <dir>', 'where generated modules go, instead of the place this installation reads')
    .option('--symbols <file>', 'System.map or saved /proc/kallsyms, for a file without symbols')
    .option('--base <file>', "the kernel of a module's BTF, as vmlinux, vmlinuz or BTF")
    .option('--config <file>', "the kernel's configuration, plain or gzipped")
    .option('--debug-root <dir...>', 'where separate debug files are, instead of /usr/lib/debug')
    .option('--quiet', 'print nothing but results and errors')
    .action(async (file: string, options, command: Command) => {
      if (options.format === 'isf' && (options.json === undefined || options.crossCheck)) {
        command.error('error: --format isf needs --json FILE', { exitCode: 2 });
      }
      const { run } = await import('./run.ts');
      process.exitCode = await run(file, options);
    });
}
