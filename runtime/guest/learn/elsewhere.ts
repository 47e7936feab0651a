import type { Remembered } from './remembered.ts';

/** A layout that somebody else read from the same kernel, as they say. */
export interface TakenLayout {
  readonly entry: Remembered;
  /** The guest that it was taken for has proved it. */
  accept(): void;
  /** It was wrong for a guest that shows the same bytes: it is not taken again. */
  refuse(why: string): void;
}

/** Where layouts may be had before a guest's memory is read. Neither throws, and neither takes more than seconds. */
export interface LayoutsElsewhere {
  take(banner: string): Promise<TakenLayout | undefined>;
  /** Has others know a layout that was read from a guest of this host and proved on it. */
  give(entry: Remembered): void;
}

let place: LayoutsElsewhere | undefined;

/** Says for this whole process where layouts may be had, as its cache is one for all; undefined for nowhere. */
export function haveLayoutsFrom(next: LayoutsElsewhere | undefined): void {
  place = next;
}

export function layoutsElsewhere(): LayoutsElsewhere | undefined {
  return place;
}
