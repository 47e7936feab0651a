import { Buffer } from 'node:buffer';
import type { KernelFile } from './elf/kernel-file.ts';
import { ExtractError } from './error.ts';

/** In the words of a compiler about itself (DW_AT_producer): `-fplugin=./scripts/gcc-plugins/randomize_layout_plugin.so`. */
const PLUGIN = '/randomize_layout_plugin.so';
const OPTION = 'CONFIG_GCC_PLUGIN_RANDSTRUCT';

/**
 * Refuses a kernel whose structures gcc put into random order (CONFIG_RANDSTRUCT, until 5.18 by the name of its plugin):
 * gcc describes them before it does so, in DWARF and in all that is made of that. clang describes them as they are.
 * @throws ExtractError `no-debug-information`
 */
export function refuseRandomized(file: Pick<KernelFile, 'path' | 'section' | 'config'>): void {
  const strings = file.section('.debug_str');
  const bytes = strings?.size ? strings.read() : new Uint8Array(0);
  const isTold = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(PLUGIN, 0, 'latin1');
  if (!isTold && file.config()?.[OPTION] !== 'y') return;
  throw new ExtractError(
    'no-debug-information',
    `${file.path} has no debug information that is true: this kernel's structures are in random order (${OPTION}) and ` +
      'described in that of the source, so its guests can be neither listed nor edited; ' +
      'have it built by clang, which describes them as they are, or with CONFIG_RANDSTRUCT_NONE',
    { file: file.path },
  );
}
