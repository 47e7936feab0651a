import type { Command } from 'commander';

export interface DomainsOptions {
  connect?: string[];
  json?: true;
}

/** Adds `domains` to the program. Its work is loaded when the command runs, to keep the others quick. */
export function register(program: Command): void {
  program
    .command('domains')
    .description('list the running domains with the kernel and the layout that each has, or why none')
    .option(
      '--connect <place>',
      'where domains are (repeatable): xen:, qemu:unix:/path/qmp.sock, dump:/path/file',
      (value: string, before: string[] = []) => [...before, value],
    )
    .option('--json', 'print JSON')
    .action(async (options: DomainsOptions) => {
      const { domains } = await import('./domains-run.ts');
      await domains(options);
    });
}
