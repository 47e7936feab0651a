import type { Command } from 'commander';
import { Option } from 'commander';
import type { KernelMemory } from './contract.ts';
import type { LoadMaker } from './modules.ts';

/** Copies the kernel from a domain's memory. The program provides this, since the extractor knows no domains. */
export type MemoryOf = (domain: string, connect: readonly string[]) => Promise<KernelMemory>;

/** What the program passes to the command, because the extractor knows neither guests nor generated code. */
export interface Needs {
  readonly memoryOf: MemoryOf;
  readonly modules: LoadMaker;
}

/** Adds `extract` to the program. Its work is loaded when it runs, to keep the other commands quick. */
export function register(program: Command, { memoryOf, modules }: Needs): void {
  program
    .command('extract')
    .description('read the structure layouts of a guest kernel and generate typed modules from them')
    .argument('[file]', 'vmlinux, vmlinuz, debug file or BTF, packed or not')
    .addOption(
      new Option(
        '--from <domain>',
        'instead of a file, the kernel that runs in a domain, by its own memory (or in a dump: --connect dump:FILE)',
      ).conflicts(['symbols', 'base', 'config', 'debugRoot']),
    )
    .addOption(
      new Option(
        '--build-id <id>',
        'instead of a file, the debug file that a server of DEBUGINFOD_URLS has, by debuginfod-find',
      ).conflicts(['from', 'debugRoot']),
    )
    .option('--connect <place...>', 'for --from, where to look for the domain')
    .addOption(
      new Option('--engine <name>', 'what reads the file')
        .choices(['auto', 'dwarf', 'btf', 'gdb'])
        .default('auto')
        // It runs all engines.
        .conflicts('crossCheck'),
    )
    .addOption(
      new Option(
        '--struct <name...>',
        "these structures; modules get them besides the scheduler's; NAME@FILE takes the one of a source file",
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
    .action(async (file: string | undefined, options, command: Command) => {
      if ([file, options.from, options.buildId].filter((source) => source !== undefined).length !== 1) {
        command.error('error: name one: a file, --from DOMAIN or --build-id ID', { exitCode: 2 });
      }
      if (options.format === 'isf' && (options.json === undefined || options.crossCheck)) {
        command.error('error: --format isf needs --json FILE', { exitCode: 2 });
      }
      const { run } = await import('./run.ts');
      const memory =
        options.from === undefined ? undefined : await memoryOf(options.from, options.connect ?? []);
      process.exitCode = await run(memory ?? file ?? { buildId: options.buildId }, options, modules);
    });
}
