/**
 * Spreads values evenly over `count` levels, from `first` for the most important to `last`.
 * @returns the value of level `level`; `first` if there is only one level
 */
export function spread(level: number, count: number, first: number, last: number): number {
  if (count <= 1) return first;
  return Math.round(first + ((last - first) * level) / (count - 1));
}

/** Like {@link spread}, but each value is the one before times a constant factor: for weights. */
export function geometric(level: number, count: number, first: number, last: number): number {
  if (count <= 1) return first;
  return Math.max(1, Math.round(first * (last / first) ** (level / (count - 1))));
}
