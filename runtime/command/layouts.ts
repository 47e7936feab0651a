import type { Command } from 'commander';
import type { LayoutsOptions } from './layouts-output.ts';

/** Adds `layouts` to the program. Its work is loaded when it runs, to keep the other commands quick. */
export function register(program: Command): void {
  program
    .command('layouts')
    .description('list the kernels whose layouts are known, or show a structure of one')
    .argument('[kernel]', 'release, folder or beginning of the build-id; alone: list its structures')
    .argument('[struct]', 'structure to show with its members and holes, e.g. rq')
    .option('--json', 'print JSON')
    .option('--svg <file>', 'draw the structure into an SVG file (- for standard output)')
    .action(async (kernel: string | undefined, struct: string | undefined, options: LayoutsOptions) => {
      const { layouts } = await import('./layouts-output.ts');
      await layouts(kernel, struct, options);
    });
}
