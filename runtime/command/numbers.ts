import { InvalidArgumentError } from 'commander';

// Values of options and arguments, as commander reads them.

export function number(value: string): number {
  const parsed = Number(value);
  if (value.trim() === '' || !Number.isFinite(parsed)) throw new InvalidArgumentError('It is no number.');
  return parsed;
}

export function whole(value: string): number {
  const parsed = number(value);
  if (!Number.isInteger(parsed)) throw new InvalidArgumentError('It is no whole number.');
  return parsed;
}

export function positive(value: string): number {
  const parsed = number(value);
  if (parsed <= 0) throw new InvalidArgumentError('It is no positive number.');
  return parsed;
}
