import type { TopView } from './view.ts';

/** The effect of a key: another view, or the end. */
export type Effect = TopView | 'quit' | undefined;

const SORTS: Readonly<Record<string, string>> = {
  c: 'cpu',
  t: 'time',
  h: 'held',
  d: 'domain',
  p: 'pid',
  n: 'name',
  i: 'nice',
};

/** Keys with their meaning, for the last line and for help. */
export const KEYS: readonly (readonly [string, string])[] = [
  ['c', 'CPU'],
  ['t', 'time'],
  ['h', 'held'],
  ['d', 'domain'],
  ['p', 'pid'],
  ['n', 'name'],
  ['i', 'nice'],
  ['r', 'reverse'],
  ['k', 'kernel threads'],
  ['space', 'stand still'],
  ['q', 'quit'],
];

/**
 * @param key as Node's readline names it
 * @param page visible lines of the list
 */
export function press(key: { name?: string; ctrl?: boolean }, view: TopView, page: number): Effect {
  const { name = '', ctrl = false } = key;
  if (ctrl) return name === 'c' ? 'quit' : undefined;
  if (Object.hasOwn(SORTS, name)) return { ...view, sort: SORTS[name]!, reversed: false, top: 0 };
  const scroll = (by: number) => ({ ...view, top: Math.max(0, view.top + by) });
  switch (name) {
    case 'q':
      return 'quit';
    case 'r':
      return { ...view, reversed: !view.reversed, top: 0 };
    case 'k':
      return { ...view, kernelThreads: !view.kernelThreads, top: 0 };
    case 'space':
      return { ...view, paused: !view.paused };
    case 'down':
      return scroll(1);
    case 'up':
      return scroll(-1);
    case 'pagedown':
      return scroll(page);
    case 'pageup':
      return scroll(-page);
    case 'home':
      return { ...view, top: 0 };
    default:
      return undefined;
  }
}
