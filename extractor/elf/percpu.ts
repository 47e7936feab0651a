import type { KernelFile } from './kernel-file.ts';

/**
 * Sections of per-CPU variables: `.data.percpu`, since 2010 `.data..percpu` (series "Rename kernel's magic sections for
 * compatibility with -ffunction-sections -fdata-sections"). Link-time addresses there are kernel addresses, but started
 * at 0 on SMP from "x86: make percpu symbols zerobased on SMP" (2.6.30) until "x86/percpu/64: Use relative percpu
 * offsets" (6.15). The offset into a CPU's area is always `address - __per_cpu_start`.
 */
const PERCPU_SECTIONS: readonly string[] = ['.data..percpu', '.data.percpu'];

/** Linker-script marks at the area's borders, which are no variables. */
const BORDERS: readonly string[] = ['__per_cpu_start', '__per_cpu_end', '__per_cpu_load'];

/** The per-CPU variables among `names`: by section, or by address if the symbols come from a text without sections. */
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
