import { SYMBOLS } from '../needs.ts';
import { BESIDE, SCHEDULER_CODE } from '../structures.ts';
import type { KernelSymbol } from './kernel-file.ts';

/** A source of symbols: an ELF symbol table, a System.map or a kallsyms text. */
export interface SymbolSource {
  /** Every defined symbol, in the source's order. */
  all(): Iterable<KernelSymbol>;
  /** All symbols with one of `names`, in the source's order, without decoding the others. */
  named(names: Iterable<string>): Iterable<KernelSymbol>;
}

/** Names that every opened kernel will need, found in the same pass as the first others. */
const SOON_WANTED: readonly string[] = [
  ...SYMBOLS,
  SCHEDULER_CODE,
  ...BESIDE.flatMap(({ variable, code }) => [variable, code]),
  'kernel_config_data',
  '__per_cpu_load',
];

/** Results of earlier look-ups, null for missing names: a pass over a kernel's symbols takes milliseconds. */
const remembered = new WeakMap<SymbolSource, Map<string, KernelSymbol | null>>();

/**
 * One symbol per name: a global one if there is one; local ones only if they agree on the address, since nothing tells
 * which of several static variables is meant.
 */
export function lookupSymbols(source: SymbolSource, names: Iterable<string>): Map<string, KernelSymbol> {
  const wanted = new Set(names);
  const known = remembered.get(source) ?? new Map<string, KernelSymbol | null>();
  remembered.set(source, known);
  const missing = [...wanted].filter((name) => !known.has(name));
  if (missing.length > 0) {
    const asked = new Set([...missing, ...SOON_WANTED.filter((name) => !known.has(name))]);
    const found = scan(source, asked);
    for (const name of asked) known.set(name, found.get(name) ?? null);
  }
  const result = new Map<string, KernelSymbol>();
  for (const name of wanted) {
    const symbol = known.get(name);
    if (symbol) result.set(name, symbol);
  }
  return result;
}

function scan(source: SymbolSource, names: ReadonlySet<string>): Map<string, KernelSymbol> {
  const found = new Map<string, KernelSymbol>();
  const ambiguous = new Set<string>();
  for (const symbol of source.named(names)) {
    const other = found.get(symbol.name);
    if (!other || (other.local && !symbol.local)) found.set(symbol.name, symbol);
    else if (other.local && symbol.local && other.address !== symbol.address) ambiguous.add(symbol.name);
  }
  for (const name of ambiguous) if (found.get(name)!.local) found.delete(name);
  return found;
}
