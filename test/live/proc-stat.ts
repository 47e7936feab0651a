/** A line of /proc/PID/stat (proc(5)), as the guest itself prints it. */
export interface ProcStat {
  readonly pid: number;
  readonly comm: string;
  /** `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`, `P`. */
  readonly state: string;
  readonly ppid: number;
  readonly flags: number;
  /** Clock ticks of 10 ms. */
  readonly utime: number;
  readonly stime: number;
  readonly nice: number;
  readonly threads: number;
  /** Clock ticks since boot. */
  readonly start: number;
  readonly cpu: number;
  readonly policy: number;
}

/** Parses the output of `cat /proc/[0-9]*\/stat`. */
export function parseProcStats(text: string): Map<number, ProcStat> {
  const found = new Map<number, ProcStat>();
  for (const line of text.split('\n')) {
    // The name may hold blanks and brackets: it ends at the last one.
    const match = /^(\d+) \((.*)\) (\S) (.*)$/.exec(line.trim());
    if (match === null) continue;
    // Fields from the fourth on.
    const fields = match[4]!.split(' ').map(Number);
    const field = (number: number) => fields[number - 4]!;
    found.set(Number(match[1]), {
      pid: Number(match[1]),
      comm: match[2]!,
      state: match[3]!,
      ppid: field(4),
      flags: field(9),
      utime: field(14),
      stime: field(15),
      nice: field(19),
      threads: field(20),
      start: field(22),
      cpu: field(39),
      policy: field(41),
    });
  }
  return found;
}

/** What `domsched ps` may call a state of /proc. */
export const STATE_NAMES: Readonly<Record<string, readonly string[]>> = {
  R: ['running', 'ready'],
  S: ['sleeping'],
  D: ['disk-sleep'],
  T: ['stopped'],
  t: ['traced'],
  Z: ['zombie'],
  X: ['dead'],
  I: ['idle'],
  P: ['parked'],
};
