/**
 * Values for `count` levels, the first for the most important, evenly spaced.
 * @returns the one of level `level`; `first` when there is only one level
 */
export function spread(level: number, count: number, first: number, last: number): number {
  if (count <= 1) return first;
  return Math.round(first + ((last - first) * level) / (count - 1));
}

/** As {@link spread}, but each by the same factor below the one before: for weights. */
export function geometric(level: number, count: number, first: number, last: number): number {
  if (count <= 1) return first;
  return Math.max(1, Math.round(first * (last / first) ** (level / (count - 1))));
}
