import type { KernelFile } from './kernel-file.ts';

/**
 * Sections of per-CPU variables: `.data.percpu` until 2.6.33, then `.data..percpu` ("Rename .data.percpu to
 * .data..percpu", 2.6.34). Their link-time addresses are 0-based since "x86-64: Use absolute displacements for
 * per-cpu accesses" (2.6.30) and until 6.15, else kernel addresses; offsets into a CPU's area in any case are
 * `address - __per_cpu_start`.
 */
const PERCPU_SECTIONS: readonly string[] = ['.data..percpu', '.data.percpu'];

/** Marks of the linker script at the area's borders, which are no variables. */
const BORDERS: readonly string[] = ['__per_cpu_start', '__per_cpu_end', '__per_cpu_load'];

/**
 * Those of `names` that are per-CPU variables: by their section, or by their address where symbols come from a
 * text that has no sections.
 */
export function percpuSymbols(file: KernelFile, names: Iterable<string>): string[] {
  const wanted = [...names];
  const symbols = file.lookup([...wanted, ...BORDERS]);
  const start = symbols.get('__per_cpu_start')?.address;
  const end = symbols.get('__per_cpu_end')?.address;
  return wanted.filter((name) => {
    const symbol = symbols.get(name);
    if (!symbol || BORDERS.includes(name)) return false;
    if (symbol.section !== null) return PERCPU_SECTIONS.includes(symbol.section);
    return start !== undefined && end !== undefined && symbol.address >= start && symbol.address < end;
  });
}
