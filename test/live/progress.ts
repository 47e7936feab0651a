/** What `workload progress` prints: a line `name=count` for each program. */
export function parseProgress(output: string): Record<string, number> {
  return Object.fromEntries(
    output
      .trim()
      .split('\n')
      .map((line) => line.split('='))
      .map(([name, value]) => [name, Number(value)]),
  );
}
