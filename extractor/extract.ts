import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type EngineName, type KernelLayout, LAYOUT_FORMAT } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';
import { percpuSymbols } from './elf/percpu.ts';
import type { Engine, EngineResult, ExtractRequest } from './engine.ts';
import { ENGINE_NAMES, loadEngine } from './engines.ts';
import { ExtractError } from './error.ts';
import { ROOT } from './installation.ts';
import { SYMBOLS } from './needs.ts';
import { refuseRandomized } from './randomized.ts';
import { requestFor, type Selection } from './structures.ts';

export interface ExtractOptions {
  engine: EngineName | 'auto';
  selection: Selection;
  base?: ExtractRequest['base'];
  progress?: ExtractRequest['progress'];
  signal?: AbortSignal;
}

/**
 * Reads a kernel's layout.
 *
 * @param file opened and closed by the caller
 * @throws ExtractError `no-debug-information` if no engine can read the file, `engine-unavailable` if the requested one
 *   cannot; what the engine throws
 */
export async function extractLayout(file: KernelFile, options: ExtractOptions): Promise<KernelLayout> {
  refuseDebugAlone(file);
  refuseRandomized(file);
  const request = engineRequest(options);
  const engine = await chooseEngine(file, options.engine, request);
  const result = await engine.extract(file, request);
  const sha256 = file.buildId === null ? await file.sha256(options.signal) : null;
  return describe(file, engine.name, result, sha256);
}

/** What the options request from an engine. */
export function engineRequest(options: Omit<ExtractOptions, 'engine'>): ExtractRequest {
  const request: ExtractRequest = requestFor(options.selection);
  if (options.base) request.base = options.base;
  if (options.progress) request.progress = options.progress;
  if (options.signal) request.signal = options.signal;
  return request;
}

async function chooseEngine(
  file: KernelFile,
  wanted: EngineName | 'auto',
  request: ExtractRequest,
): Promise<Engine> {
  if (wanted !== 'auto') {
    const engine = await loadEngine(wanted);
    const reason = await engine.unavailable(file, request);
    if (reason === null) return engine;
    throw new ExtractError(
      'engine-unavailable',
      `the ${wanted} engine cannot read ${file.path}: ${reason}; --engine auto takes one that can`,
      { file: file.path, engine: wanted },
    );
  }
  const reasons: string[] = [];
  // gdb reads the same debug information as libdwarf, but slower: it is a second opinion, never the first.
  for (const name of ENGINE_NAMES.filter((name) => name !== 'gdb')) {
    const engine = await loadEngine(name);
    const reason = await engine.unavailable(file, request);
    if (reason === null) return engine;
    reasons.push(`${name}: ${reason}`);
  }
  throw noDebugInformation(file, reasons);
}

/** A debug file contains structures but does not identify its kernel. */
function refuseDebugAlone(file: KernelFile): void {
  const bytes = file.section('.rodata')?.size;
  if (file.banner() !== null || bytes !== 0 || !file.lookup(['linux_banner']).has('linux_banner')) return;
  throw new ExtractError(
    'no-banner',
    `${file.path} is the debug information alone; the banner by which a guest's kernel is recognized is in the kernel ` +
      `that it was split from${file.buildId === null ? '' : ` (build-id ${file.buildId})`}: ` +
      'put that vmlinux or vmlinuz beside it under its usual name',
    { file: file.path, buildId: file.buildId },
  );
}

function noDebugInformation(file: KernelFile, reasons: readonly string[]): ExtractError {
  const release = file.release();
  const remedy = release
    ? `the package linux-image-${release}-dbg (Debian's name) has it as /usr/lib/debug/boot/vmlinux-${release}; ` +
      'give that file, or its folder with --debug-root'
    : 'give the vmlinux that the build left, or a kernel with BTF';
  return new ExtractError(
    'no-debug-information',
    `${file.path} has no debug information (${reasons.join('; ')}): ${remedy}`,
    { file: file.path, release, buildId: file.buildId },
  );
}

function describe(
  file: KernelFile,
  engine: EngineName,
  result: EngineResult,
  sha256: string | null,
): KernelLayout {
  const symbols = new Map<string, string>();
  const known = file.lookup(SYMBOLS);
  for (const name of SYMBOLS) {
    const symbol = known.get(name);
    if (symbol) symbols.set(name, hex(symbol.address));
  }
  const percpu = new Set(percpuSymbols(file, symbols.keys()));
  for (const name of SYMBOLS) {
    // BTF lists per-CPU variables by their offset in the section, even without a symbol table. That is their address in
    // kernels that link the section at 0 (2.6.30 to 6.14); later kernels need a System.map for the other symbols
    // anyway.
    const offset = result.percpu && Object.hasOwn(result.percpu, name) ? result.percpu[name]! : null;
    if (offset === null || symbols.has(name)) continue;
    symbols.set(name, hex(BigInt(offset)));
    percpu.add(name);
  }
  const config = file.config();
  return {
    format: LAYOUT_FORMAT,
    kernel: { release: file.release(), banner: file.banner(), buildId: file.buildId, arch: 'x86_64' },
    source: { file: basename(file.path), sha256, engine, dwarfVersion: result.dwarfVersion },
    producer: { name: 'domsched', version: ownVersion() },
    ...(config ? { config } : {}),
    structs: result.structs,
    enums: result.enums,
    constants: result.constants ?? {},
    symbols: sorted(symbols),
    percpu: [...percpu].sort(),
  };
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

function sorted(map: ReadonlyMap<string, string>): Record<string, string> {
  return Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The version in package.json. */
export function ownVersion(): string {
  const text = readFileSync(new URL('package.json', ROOT), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
