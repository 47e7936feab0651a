import { DOING, type PastAction, SAMPLES, type Store, type Track } from './store.ts';

/** Colours of the theme, read from the style sheet. */
export interface Palette {
  readonly domains: readonly string[];
  readonly track: string;
  readonly grid: string;
  readonly held: string;
  readonly heldLine: string;
  readonly bad: string;
  readonly text: string;
  readonly soft: string;
}

const DOMAINS = 8;

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    domains: Array.from({ length: DOMAINS }, (_, i) => read(`d${i}`)),
    track: read('track'),
    grid: read('grid'),
    held: read('held'),
    heldLine: read('held-line'),
    bad: read('bad'),
    text: read('text'),
    soft: read('soft'),
  };
}

/** What to draw: the time range and the width. */
export interface TimelineWindow {
  readonly store: Store;
  readonly windowMs: number;
  /** In CSS pixels. */
  readonly width: number;
  readonly height: number;
  readonly palette: Palette;
}

/** Sets a canvas to its displayed size and clears it. */
export function prepare(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext('2d')!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Draws one process: a bar for its share of one CPU, above it the time that it waited for, hatched while held. */
export function drawTrack(
  canvas: HTMLCanvasElement,
  track: Track,
  colour: number,
  frame: TimelineWindow,
): void {
  const { store, windowMs, width, height, palette } = frame;
  const context = prepare(canvas, width, height);
  const top = 3;
  const bar = height - 2 * top;
  const { count, times } = store;
  if (count === 0) return;
  const now = times[(count - 1) % SAMPLES]!;
  // On whole pixels of the screen, so that neighbours neither overlap nor leave a seam.
  const ratio = window.devicePixelRatio || 1;
  const place = (ms: number) => Math.round(((ms - (now - windowMs)) / windowMs) * width * ratio) / ratio;
  const fill = palette.domains[colour % DOMAINS]!;
  const first = Math.max(0, count - SAMPLES);
  let known = first;
  while (known < count && track.doing[known % SAMPLES] === DOING.absent) known++;
  // A sample describes the time before it.
  const begin = known === first ? place(times[first % SAMPLES]!) : place(times[(known - 1) % SAMPLES]!);
  context.fillStyle = palette.track;
  context.fillRect(Math.max(0, begin), top, width - Math.max(0, begin), bar);
  let heldFrom: number | undefined;
  for (let n = count - 1; n > first; n--) {
    const i = n % SAMPLES;
    const left = place(times[(n - 1) % SAMPLES]!);
    const right = place(times[i]!);
    const doing = track.doing[i]!;
    if (doing === DOING.held) heldFrom ??= right;
    else if (heldFrom !== undefined) {
      drawHeld(context, right, heldFrom, top, bar, palette);
      heldFrom = undefined;
    }
    if (right < 0) break;
    if (doing === DOING.absent) continue;
    const x = Math.max(0, left);
    const share = Math.min(100, track.ran[i]!) / 100;
    const high = share > 0 ? Math.max(1, share * bar) : 0;
    const wide = right - x;
    if (doing === DOING.waiting && high < bar) {
      context.globalAlpha = 0.26;
      context.fillStyle = fill;
      context.fillRect(x, top, wide, bar - high);
      context.globalAlpha = 1;
    }
    if (high > 0) {
      context.fillStyle = fill;
      context.fillRect(x, top + bar - high, wide, high);
    }
  }
  if (heldFrom !== undefined) drawHeld(context, place(times[first % SAMPLES]!), heldFrom, top, bar, palette);
  for (const action of store.actions) {
    const isMine = action.domain === track.domain && action.key === track.process.key;
    if (isMine) drawMark(context, action, place(action.ms), height / 2, palette);
  }
}

function drawHeld(
  context: CanvasRenderingContext2D,
  left: number,
  right: number,
  top: number,
  bar: number,
  palette: Palette,
): void {
  const x = Math.max(-1, left);
  if (right <= x) return;
  context.save();
  context.beginPath();
  context.rect(x, top, right - x, bar);
  context.clip();
  context.fillStyle = palette.held;
  context.fillRect(x, top, right - x, bar);
  context.strokeStyle = palette.heldLine;
  context.lineWidth = 1.5;
  context.beginPath();
  // Hatched from a fixed origin, so that the lines stand still as time passes.
  for (let at = Math.floor((x - bar) / 7) * 7; at < right; at += 7) {
    context.moveTo(at, top + bar);
    context.lineTo(at + bar, top);
  }
  context.stroke();
  context.restore();
  context.strokeStyle = palette.heldLine;
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, top + 0.5, right - x - 1, bar - 1);
}

/** Marks edits that no bar shows: nice values, and refused or failed edits. */
function drawMark(
  context: CanvasRenderingContext2D,
  { action, outcome }: PastAction,
  x: number,
  middle: number,
  palette: Palette,
): void {
  if (x < 0) return;
  context.beginPath();
  if (outcome !== 'done') {
    context.strokeStyle = palette.bad;
    context.lineWidth = 2;
    context.moveTo(x - 4, middle - 4);
    context.lineTo(x + 4, middle + 4);
    context.moveTo(x + 4, middle - 4);
    context.lineTo(x - 4, middle + 4);
    context.stroke();
  } else if (action === 'nice') {
    context.fillStyle = palette.text;
    context.moveTo(x, middle - 5);
    context.lineTo(x + 5, middle);
    context.lineTo(x, middle + 5);
    context.lineTo(x - 5, middle);
    context.fill();
  }
}

/** Draws the time axis above the list. */
export function drawAxis(canvas: HTMLCanvasElement, frame: TimelineWindow): void {
  const { windowMs, width, height, palette } = frame;
  const context = prepare(canvas, width, height);
  context.font = '11px system-ui, "DejaVu Sans", sans-serif';
  context.fillStyle = palette.soft;
  context.strokeStyle = palette.grid;
  const steps = [5, 10, 15, 30, 60, 120];
  const step = steps.find((seconds) => (windowMs / 1000 / seconds) * 70 <= width) ?? 300;
  for (let ago = 0; ago * 1000 <= windowMs; ago += step) {
    const x = width - (ago * 1000 * width) / windowMs;
    context.beginPath();
    context.moveTo(Math.min(width - 0.5, Math.max(0.5, Math.round(x) - 0.5)), height - 6);
    context.lineTo(Math.min(width - 0.5, Math.max(0.5, Math.round(x) - 0.5)), height);
    context.stroke();
    const label = ago === 0 ? 'now' : ago % 60 === 0 ? `−${ago / 60} min` : `−${ago} s`;
    const half = context.measureText(label).width / 2;
    context.fillText(label, Math.min(width - 2 * half, Math.max(0, x - half)), height - 10);
  }
}
