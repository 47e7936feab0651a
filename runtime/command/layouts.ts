import type { Command } from 'commander';
import { lazily } from './lazily.ts';

/** Adds `layouts` to the program. */
export function register(program: Command): void {
  program
    .command('layouts')
    .description('list the kernels whose layouts are known, or show a structure of one')
    .argument('[kernel]', 'release, folder or beginning of the build-id; alone: list its structures')
    .argument('[struct]', 'structure to show with its members and holes, e.g. rq')
    .option('--json', 'print JSON')
    .option('--svg <file>', 'draw the structure into an SVG file (- for standard output)')
    .action(lazily(async () => (await import('./layouts-output.ts')).layouts));
}
