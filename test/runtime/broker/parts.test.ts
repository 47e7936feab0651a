import test from 'ava';
import { build } from 'esbuild';
import { projectDirectory } from '../../../kernels/paths.ts';

/**
 * Rooms that read guests or decide, and files that follow a guest's own tables or parse what it has chosen: of a monitor, the
 * registers.
 */
const READERS =
  /^(extractor\/(?!known-error\.ts)|generated|codegen|runtime\/(blame|brokered|code|command|control|daemon|fleet|guest|layout|members|memory|metrics|policy|technique|tick|trace|watch|web)\/|runtime\/hypervisor\/(dump|fake|xen)\/|runtime\/hypervisor\/vmm\/(attach-ram|guest-tables|plugged-ram)|runtime\/hypervisor\/qemu\/(domain|gdb|host|qtest|registers))/;

test('the broker is made of nothing that reads a guest, and of two libraries', async (t) => {
  const { metafile } = await build({
    entryPoints: ['runtime/broker/broker-process.ts'],
    absWorkingDir: projectDirectory,
    bundle: true,
    write: false,
    metafile: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
  });
  const files = Object.keys(metafile.inputs);
  t.true(files.includes('runtime/broker/broker.ts') && files.includes('runtime/hypervisor/vmm/ptrace.ts'));
  t.deepEqual(
    files.filter((file) => READERS.test(file)),
    [],
  );
  const libraries = Object.values(metafile.inputs).flatMap(({ imports }) =>
    imports.flatMap(({ path, external }) => (external && !path.startsWith('node:') ? [path] : [])),
  );
  t.deepEqual([...new Set(libraries)].sort(), ['koffi', 'zod']);
});
