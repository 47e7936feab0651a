/** Formats ns as `minutes:seconds.hundredths`, the way top shows CPU time. */
export function duration(ns: number): string {
  const hundredths = Math.floor(ns / 1e7);
  const minutes = Math.floor(hundredths / 6000);
  const seconds = ((hundredths % 6000) / 100).toFixed(2).padStart(5, '0');
  return `${minutes}:${seconds}`;
}
