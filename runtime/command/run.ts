import process from 'node:process';
import type { Command } from 'commander';

export const DEFAULT_CONFIG = '/etc/domsched.toml';

/** Adds `run` and `check-config` to the program. Their work is loaded when one runs. */
export function register(program: Command): void {
  program
    .command('run')
    .description(
      'run the daemon: apply the policies of a configuration to all domains until it is told to stop',
    )
    .option('-c, --config <file>', 'configuration', DEFAULT_CONFIG)
    .action(async ({ config }: { config: string }) => {
      // Its configuration has not been read yet, so there is nothing to read again.
      process.on('SIGHUP', () => {});
      const { runDaemon } = await import('../daemon/main.ts');
      await runDaemon(config);
    });
  program
    .command('check-config')
    .description('check a configuration of the daemon, and list every problem with its place')
    .argument('[file]', 'configuration', DEFAULT_CONFIG)
    .option('--json', 'print JSON')
    .action(async (file: string, { json }: { json?: true }) => {
      const { checkConfig } = await import('../daemon/main.ts');
      await checkConfig(file, json ?? false);
    });
}
