import test from 'ava';
import { openKernelFile } from '../../extractor/elf/open.ts';
import { extractLayout } from '../../extractor/extract.ts';
import { refuseRandomized } from '../../extractor/randomized.ts';
import { KERNEL_SOURCE, linkKernel } from './fixture.ts';

const SELECTION = { engine: 'auto', selection: { kind: 'scheduler' } } as const;

/** A string among those of the debug information. */
const says = (text: string) =>
  `__asm__(".pushsection .debug_str,\\"MS\\",@progbits,1\\n.asciz \\"${text}\\"\\n.popsection");`;

test("a kernel whose structures gcc's plugin put into random order is refused: its description is of another order", async (t) => {
  const plugin = 'GNU C11 12.2.0 -O2 -fplugin=./scripts/gcc-plugins/randomize_layout_plugin.so';
  await using file = await openKernelFile(linkKernel(t, `${KERNEL_SOURCE}\n${says(plugin)}`), {
    debugRoots: [],
  });
  await t.throwsAsync(extractLayout(file, SELECTION), {
    code: 'no-debug-information',
    message: /random order \(CONFIG_GCC_PLUGIN_RANDSTRUCT\).*built by clang.*or with CONFIG_RANDSTRUCT_NONE/,
  });
});

test('another plugin changes no order, and a kernel may have a file or member of such a name', async (t) => {
  const other =
    'GNU C11 12.2.0 -O2 -fplugin=./scripts/gcc-plugins/latent_entropy_plugin.so randomize_layout_plugin.c';
  await using file = await openKernelFile(linkKernel(t, `${KERNEL_SOURCE}\n${says(other)}`), {
    debugRoots: [],
  });
  t.truthy((await extractLayout(file, SELECTION)).structs.task_struct);
});

test('without a word of the compiler, the configuration tells', (t) => {
  const config = (value: string) => () => ({ CONFIG_GCC_PLUGIN_RANDSTRUCT: value });
  const file = { path: 'vmlinuz', section: () => null };
  t.throws(() => refuseRandomized({ ...file, config: config('y') }), { code: 'no-debug-information' });
  t.notThrows(() => refuseRandomized({ ...file, config: config('n') }));
  t.notThrows(() => refuseRandomized({ ...file, config: () => ({ CONFIG_RANDSTRUCT_FULL: 'y' }) }), 'clang');
  t.notThrows(() => refuseRandomized({ ...file, config: () => null }));
});
