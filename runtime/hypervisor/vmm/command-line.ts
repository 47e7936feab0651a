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

/** All values of a QEMU option that may be given several times. */
function optionsOf(args: readonly string[], option: string): string[] {
  return args.filter((_, at) => args[at - 1] === `-${option}` || args[at - 1] === `--${option}`);
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
  return value === undefined ? undefined : bytesOf(properties(value, 'size').get('size'));
}

/**
 * Bytes of RAM of each memory node of a QEMU machine, in the order in which they are in the guest: by node (`hw/core/numa.c`,
 * `numa_init_memdev_container()`). Each node has memory of its own in the process.
 * @returns empty if all memory is one, or the command line does not tell
 */
export function nodeBytes(args: readonly string[]): readonly number[] {
  const sizes = new Map(
    optionsOf(args, 'object').map((value) => {
      const backend = backendOf(value);
      return [backend.get('id'), bytesOf(backend.get('size'), 1)];
    }),
  );
  const nodes = optionsOf(args, 'numa')
    .map((value) => properties(value, 'type'))
    .filter((node) => node.get('type') === 'node' && node.has('memdev'));
  const bytes = nodes
    .map((node, index) => ({ id: Number(node.get('nodeid') ?? index), size: sizes.get(node.get('memdev')) }))
    .sort((a, b) => a.id - b.id)
    .map(({ size }) => size);
  return bytes.every((size) => size !== undefined) ? bytes : [];
}

/** Properties of an object in QEMU's own form or, as with libvirt, in JSON. */
function backendOf(value: string): ReadonlyMap<string, string> {
  if (!value.startsWith('{')) return properties(value, 'qom-type');
  try {
    return new Map(Object.entries(JSON.parse(value) as object).map(([key, given]) => [key, String(given)]));
  } catch {
    return new Map();
  }
}

/** @param unit of a number without one */
function bytesOf(size: string | undefined, unit = MIB): number | undefined {
  if (size === undefined) return undefined;
  const bytes = /^\d+$/.test(size) ? Number(size) * unit : parseBytes(size);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}
