import { readFileSync } from 'node:fs';
import { parseBytes } from '../connect-value.ts';

/** Bytes of a command line that are looked at: libvirt's longest have some 20 KiB. */
const MAX_BYTES = 1024 * 1024;
/** What `-m` counts in where no unit is given. */
const MIB = 1024 * 1024;

/**
 * The command line of a process. Whoever runs the process wrote it, and the process can change it: it names a machine and
 * says where to look first, and nothing is believed of the guest because of it.
 */
export function commandLine(pid: number): readonly string[] {
  try {
    const text = readFileSync(`/proc/${pid}/cmdline`).subarray(0, MAX_BYTES).toString('utf8');
    return text.replace(/\0$/, '').split('\0');
  } catch {
    return [];
  }
}

/** The value after an option of QEMU's, which takes one dash or two; the last one counts. */
export function optionOf(args: readonly string[], option: string): string | undefined {
  const at = args.findLastIndex((arg) => arg === `-${option}` || arg === `--${option}`);
  return at < 0 ? undefined : args[at + 1];
}

/** Keys and values of an option as QEMU has them: `key=value,…`, commas in a value doubled, the first key left out. */
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
 * The name that a machine's manager gave it. Proxmox knows its machines by numbers, and so do its tools.
 * @returns undefined where it gave none
 */
export function machineName(args: readonly string[]): string | undefined {
  const id = optionOf(args, 'id');
  const pidFile = optionOf(args, 'pidfile');
  if (id !== undefined && pidFile?.endsWith(`/qemu-server/${id}.pid`)) return id;
  const name = optionOf(args, 'name');
  return (name === undefined ? id : properties(name, 'guest').get('guest')) || undefined;
}

/** Bytes of RAM that a machine of QEMU's starts with; undefined where its command line does not say. */
export function ramBytes(args: readonly string[]): number | undefined {
  const value = optionOf(args, 'm');
  const size = value === undefined ? undefined : properties(value, 'size').get('size');
  if (size === undefined) return undefined;
  const bytes = /^\d+$/.test(size) ? Number(size) * MIB : parseBytes(size);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}
