/** When a policy is in force, by the host's clock. */
export interface WindowSpec {
  /** `HH:MM`; a `to` before `from` is on the next day, equal times mean the whole day. */
  readonly from: string;
  readonly to: string;
  /** Days on which the window begins; defaults to every day. */
  readonly days?: readonly Day[] | undefined;
}

export const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
export type Day = (typeof DAYS)[number];

const MINUTES_A_DAY = 24 * 60;

/** Whether any of the windows is open; without windows the answer is always yes. */
export function isOpen(windows: readonly WindowSpec[], date: Date): boolean {
  return windows.length === 0 || windows.some((window) => isIn(window, date));
}

function isIn({ from, to, days = DAYS }: WindowSpec, date: Date): boolean {
  const now = date.getHours() * 60 + date.getMinutes();
  const start = minutes(from);
  const length = (minutes(to) - start + MINUTES_A_DAY) % MINUTES_A_DAY || MINUTES_A_DAY;
  const since = (now - start + MINUTES_A_DAY) % MINUTES_A_DAY;
  if (since >= length) return false;
  // A window that began before midnight belongs to the day before.
  const began = now >= start ? date.getDay() : (date.getDay() + 6) % 7;
  return days.includes(DAYS[began]!);
}

function minutes(time: string): number {
  const [hours, rest] = time.split(':').map(Number);
  return hours! * 60 + rest!;
}
