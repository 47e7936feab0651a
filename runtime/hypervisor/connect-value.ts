import path from 'node:path';

/** The parts of a `--connect` value: `scheme:address,key=value,…`. */
export interface ConnectValue {
  readonly scheme: string;
  readonly address: string;
  readonly options: ReadonlyMap<string, string>;
}

/**
 * Splits a value into its parts. A comma in a path is doubled, as in QEMU's own options.
 * @returns undefined if it is not such a value
 */
export function parseConnect(value: string): ConnectValue | undefined {
  const match = /^([a-z]+):(.*)$/s.exec(value);
  if (match === null) return undefined;
  // The zero byte stands for a comma, because no path contains one.
  const [address = '', ...rest] = match[2]!
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
  const options = new Map<string, string>();
  for (const part of rest) {
    const [key = '', option] = part.split(/=(.*)/s, 2);
    if (option === undefined) return undefined;
    options.set(key, option);
  }
  return { scheme: match[1]!, address, options };
}

/** Makes a value that {@link parseConnect} can split. Undefined options are left out. */
export function formatConnect(
  scheme: string,
  address: string,
  options: Readonly<Record<string, string | undefined>> = {},
): string {
  const given = Object.entries(options).filter(([, option]) => option !== undefined);
  return `${scheme}:${[address, ...given.map(([key, option]) => `${key}=${option}`)]
    .map((part) => part.replaceAll(',', ',,'))
    .join(',')}`;
}

/** The same value with absolute paths, for another program that may run in another directory. */
export function absoluteConnect(value: string): string {
  const parsed = parseConnect(value);
  if (parsed === undefined) return value;
  const { scheme, address, options } = parsed;
  const whole = (place: string) => {
    const [, prefix = '', file = ''] = /^(unix:)?(.*)$/s.exec(place)!;
    // `connect` refuses a leading ~.
    return file === '' || file.startsWith('~') || (prefix === '' && scheme !== 'dump')
      ? place
      : `${prefix}${path.resolve(file)}`;
  };
  const entries = [...options].map(([key, option]) => [
    key,
    option.startsWith('unix:') ? whole(option) : option,
  ]);
  return formatConnect(scheme, whole(address), Object.fromEntries(entries));
}

/** The place that a value names, without its options. */
export function placeOf(value: string): string {
  const parsed = parseConnect(value);
  return parsed === undefined ? value : formatConnect(parsed.scheme, parsed.address);
}

/** Parses a number of bytes as QEMU does: decimal, hexadecimal, or with K, M or G. NaN if it is not one. */
export function parseBytes(text: string): number {
  const [, number, unit = ''] = /^(0x[0-9a-f]+|\d+)([kmg]?)$/i.exec(text) ?? [];
  return number === undefined
    ? Number.NaN
    : Number(number) * 1024 ** ' kmg'.indexOf(unit.toLowerCase() || ' ');
}
