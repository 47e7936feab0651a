import type { KernelSymbol } from './kernel-file.ts';

/** Where symbols come from: an ELF symbol table, a System.map or a kallsyms text. */
export interface SymbolSource {
  /** Every defined symbol, in the source's order. */
  all(): Iterable<KernelSymbol>;
  /** All symbols with one of `names`, in the source's order, without decoding the others. */
  named(names: Iterable<string>): Iterable<KernelSymbol>;
}

/**
 * One symbol for each name: a global one where there is one; local ones only when they agree on the address,
 * since nothing says which of several static variables is meant.
 */
export function lookupSymbols(source: SymbolSource, names: Iterable<string>): Map<string, KernelSymbol> {
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
