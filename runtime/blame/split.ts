/**
 * Splits a whole number by weights into whole numbers whose sum is exactly that number.
 * @param total not negative
 * @param weights what is negative or no number counts as 0
 * @returns all 0 if no weight is positive
 */
export function split(total: number, weights: readonly number[]): number[] {
  const clean = weights.map((weight) => (Number.isFinite(weight) && weight > 0 ? weight : 0));
  const sum = clean.reduce((a, b) => a + b, 0);
  if (sum <= 0 || !Number.isFinite(sum)) return clean.map(() => 0);
  let weight = 0;
  let given = 0;
  return clean.map((own) => {
    weight += own;
    // The last positive weight reaches the sum itself, by the same additions.
    const upTo = weight === sum ? total : Math.min(total, Math.round((total * weight) / sum));
    const part = Math.max(0, upTo - given);
    given += part;
    return part;
  });
}

/** Parts of a whole in thousandths, largest remainders first: they add up to 1000 and keep the order of the weights. */
export function permilles(weights: readonly number[]): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  if (sum <= 0) return weights.map(() => 0);
  const exact = weights.map((weight) => (1000 * weight) / sum);
  const parts = exact.map(Math.floor);
  const byRemainder = exact
    .map((value, i) => ({ i, rest: value - parts[i]! }))
    .sort((a, b) => b.rest - a.rest);
  const missing = 1000 - parts.reduce((a, b) => a + b, 0);
  for (const { i } of byRemainder.slice(0, Math.max(0, missing))) parts[i]! += 1;
  return parts;
}
