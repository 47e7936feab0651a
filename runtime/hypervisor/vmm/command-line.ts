import { readFileSync } from 'node:fs';
import { parseBytes } from '../connect-value.ts';

/** Most bytes of a command line to read; libvirt's longest have some 20 KiB. */
const MAX_BYTES = 1024 * 1024;
/** Unit of `-m` if none is given. */
const MIB = 1024 * 1024;

/**
 * The command line of a process. The user of the process wrote it and the process can change it. So it only gives a
 * machine's name and a hint where to look first; we believe nothing about the guest because of it.
 */
export function commandLine(pid: number): readonly string[] {
  try {
    const text = readFileSync(`/proc/${pid}/cmdline`).subarray(0, MAX_BYTES).toString('utf8');
    return text.replace(/\0$/, '').split('\0');
  } catch {
    return [];
  }
}

/** The value after a QEMU option, which takes one dash or two; the last one counts. */
export function optionOf(args: readonly string[], option: string): string | undefined {
  const at = args.findLastIndex((arg) => arg === `-${option}` || arg === `--${option}`);
  return at < 0 ? undefined : args[at + 1];
}

/** Parses a QEMU option `key=value,…`. Commas in a value are doubled, and the first key may be left out. */
export function properties(value: string, first: string): ReadonlyMap<string, string> {
  const parts = value
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
  return new Map(
    parts.map((part, index) => {
      const [key = '', given] = part.split(/=(.*)/s, 2);
      return given === undefined && index === 0 ? [first, part] : [key, given ?? 'on'];
    }),
  );
}

/**
 * The name that a machine's manager gave it. Proxmox and its tools know machines by number.
 * @returns undefined if it has none
 */
export function machineName(args: readonly string[]): string | undefined {
  const id = optionOf(args, 'id');
  const pidFile = optionOf(args, 'pidfile');
  if (id !== undefined && pidFile?.endsWith(`/qemu-server/${id}.pid`)) return id;
  const name = optionOf(args, 'name');
  return (name === undefined ? id : properties(name, 'guest').get('guest')) || undefined;
}

/** Bytes of RAM that a QEMU machine starts with; undefined if its command line does not tell. */
export function ramBytes(args: readonly string[]): number | undefined {
  const value = optionOf(args, 'm');
  const size = value === undefined ? undefined : properties(value, 'size').get('size');
  if (size === undefined) return undefined;
  const bytes = /^\d+$/.test(size) ? Number(size) * MIB : parseBytes(size);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}
