import type { EngineName } from './contract.ts';
import type { Engine } from './engine.ts';

/** Every engine, in the order in which `auto` tries them. Loaded on demand, since they bring wasm or other programs. */
const ENGINES: ReadonlyMap<EngineName, () => Promise<Engine>> = new Map([
  ['dwarf', async () => (await import('./dwarf/engine.ts')).dwarfEngine],
  ['btf', async () => (await import('./btf/engine.ts')).btfEngine],
  ['gdb', async () => (await import('./gdb/engine.ts')).gdbEngine],
]);

export const ENGINE_NAMES: readonly EngineName[] = [...ENGINES.keys()];

export function loadEngine(name: EngineName): Promise<Engine> {
  return ENGINES.get(name)!();
}
