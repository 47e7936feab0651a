import { execFileSync } from 'node:child_process';

/** Runs a tool of the machine and gives what it printed. */
export function tool(command: string, ...args: string[]): string {
  return execFileSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 256 << 20,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
}

/** Sections with bytes as `readelf -S` lists them. */
export function readelfSections(path: string): { name: string; address: bigint; size: number }[] {
  const pattern = /\[ *\d+\] (\S+) +(\S+) +([0-9a-f]{16}) [0-9a-f]+ ([0-9a-f]+)/g;
  return [...tool('readelf', '-SW', path).matchAll(pattern)]
    .filter(([, , type]) => type !== 'NULL' && type !== 'NOBITS')
    .map(([, name, , address, size]) => ({
      name: name!,
      address: BigInt(`0x${address}`),
      size: Number.parseInt(size!, 16),
    }));
}

export function readelfBuildId(path: string): string | null {
  return /Build ID: ([0-9a-f]+)/.exec(tool('readelf', '-n', path))?.[1] ?? null;
}

/** Defined symbols as `nm` lists them: name to addresses. */
export function nmSymbols(path: string): Map<string, bigint[]> {
  const symbols = new Map<string, bigint[]>();
  for (const [, address, name] of tool('nm', '--defined-only', path).matchAll(/^([0-9a-f]{16}) . (\S+)$/gm)) {
    symbols.set(name!, [...(symbols.get(name!) ?? []), BigInt(`0x${address}`)]);
  }
  return symbols;
}
