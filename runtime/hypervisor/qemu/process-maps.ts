import { readFileSync } from 'node:fs';

/** One line of `/proc/PID/maps`. */
export interface ProcessMap {
  readonly start: number;
  /** Address of the byte after the last. */
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly executable: boolean;
  readonly shared: boolean;
  /** Offset of the first byte in the file. */
  readonly offset: number;
  readonly major: number;
  readonly minor: number;
  /** 0 for memory without a file. */
  readonly inode: number;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])([sp]) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)/;

/** Mappings of a process, ascending. Empty if it has none that we may see. */
export function processMaps(pid: number): ProcessMap[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/maps`, 'latin1');
  } catch {
    return [];
  }
  return parseMaps(text);
}

/** @param text of `/proc/PID/maps` */
export function parseMaps(text: string): ProcessMap[] {
  return text.split('\n').flatMap((line) => {
    const [, start, end, read, write, execute, sharing, offset, major, minor, inode] = LINE.exec(line) ?? [];
    if (start === undefined) return [];
    const hex = (digits: string | undefined) => Number.parseInt(digits!, 16);
    return [
      {
        start: hex(start),
        end: hex(end),
        readable: read === 'r',
        writable: write === 'w',
        executable: execute === 'x',
        shared: sharing === 's',
        offset: hex(offset),
        major: hex(major),
        minor: hex(minor),
        inode: Number(inode),
      },
    ];
  });
}

/** The mappings that together cover a range, because the kernel splits mappings; undefined if there is a gap. */
export function mappingsOf(
  maps: readonly ProcessMap[],
  address: number,
  length: number,
): ProcessMap[] | undefined {
  const found = maps.filter(({ start, end }) => start < address + length && end > address);
  let covered = address;
  for (const { start, end } of found) {
    if (start > covered) return undefined;
    covered = end;
  }
  return covered >= address + length ? found : undefined;
}

/** The place of a range in one shared, writable file, if it is contiguous there; otherwise undefined. */
export function filePlace(
  mappings: readonly ProcessMap[],
  address: number,
): { map: ProcessMap; offset: number } | undefined {
  const map = mappings[0]!;
  const delta = map.offset - map.start;
  const whole = mappings.every(
    (other) =>
      other.shared &&
      other.writable &&
      other.inode !== 0 &&
      other.inode === map.inode &&
      other.major === map.major &&
      other.minor === map.minor &&
      other.offset - other.start === delta,
  );
  return whole ? { map, offset: address + delta } : undefined;
}
