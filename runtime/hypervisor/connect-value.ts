import path from 'node:path';

/** A `--connect` value, taken apart: `scheme:address,key=value,…`. */
export interface ConnectValue {
  readonly scheme: string;
  readonly address: string;
  readonly options: ReadonlyMap<string, string>;
}

/**
 * Takes a value apart. A comma in a path is written twice, as QEMU has it in its own options.
 * @returns undefined for what is none
 */
export function parseConnect(value: string): ConnectValue | undefined {
  const match = /^([a-z]+):(.*)$/s.exec(value);
  if (match === null) return undefined;
  // No path has a zero byte in it.
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

/** The value that {@link parseConnect} takes apart; options that are undefined are left out. */
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

/** The same value with whole paths: whoever it is handed on to may be in another folder. */
export function absoluteConnect(value: string): string {
  const parsed = parseConnect(value);
  if (parsed === undefined) return value;
  const { scheme, address, options } = parsed;
  const whole = (place: string) => {
    const [, prefix = '', file = ''] = /^(unix:)?(.*)$/s.exec(place)!;
    // A leading ~ is left for `connect` to refuse.
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

/** What a value leads to, without the options that say how. */
export function placeOf(value: string): string {
  const parsed = parseConnect(value);
  return parsed === undefined ? value : formatConnect(parsed.scheme, parsed.address);
}

/** A number of bytes as QEMU takes it: decimal or hexadecimal, or with K, M or G. NaN for what is none. */
export function parseBytes(text: string): number {
  const [, number, unit = ''] = /^(0x[0-9a-f]+|\d+)([kmg]?)$/i.exec(text) ?? [];
  return number === undefined
    ? Number.NaN
    : Number(number) * 1024 ** ' kmg'.indexOf(unit.toLowerCase() || ' ');
}
