import { xml } from '../layout/picture/xml.ts';
import type { History, TracedProcess } from './collect.ts';
import { columnsOf, percent, round, timeLabel, timeMarks } from './scale.ts';
import { MARGIN, sheet, WIDTH } from './sheet.ts';
import { clip, colourOf } from './style.ts';

const LEFT = 70;
const RIGHT = WIDTH - 330;
const TOP = 78;
const HEIGHT = 240;
const COLUMN = 2;
/** Processes with a layer of their own; the others share one. */
const LAYERS = 9;
/** A layer below this part of one CPU would be invisible. */
const LITTLE = 0.005;
const SHADES = [1, 0.68, 0.45, 0.3] as const;

interface Layer {
  readonly name: string;
  readonly domain: string;
  readonly ranMs: number;
  readonly colour: string;
  readonly opacity: number;
  readonly ran: Float64Array;
}

/** Draws CPU use over time as an SVG picture: the busiest processes as layers stacked upon each other. */
export function sharesSvg(history: History): string {
  const { durationMs } = history;
  const layers = layersOf(history);
  const top = ceiling(layers, history);
  const bottom = TOP + HEIGHT;
  const areas: string[] = [];
  const base = new Float64Array(layers[0]?.ran.length ?? 0);
  for (const { ran, colour, opacity } of layers) {
    areas.push(`<path class="${colour} gap" fill-opacity="${opacity}" d="${area(base, ran, top)}"/>`);
    for (const [i, value] of ran.entries()) base[i]! += value;
  }
  const height = Math.max(bottom, TOP + layers.length * 24) + 40;
  return sheet('shares', 'Who had the CPUs', height, [
    `<rect class="track" x="${LEFT}" y="${TOP}" width="${RIGHT - LEFT}" height="${HEIGHT}"/>`,
    ...areas,
    ...levels(top),
    ...timeMarks(durationMs, 11).map((mark) => {
      const x = round(LEFT + (durationMs > 0 ? mark / durationMs : 0) * (RIGHT - LEFT), 1);
      return `<path class="grid" d="M${x} ${bottom}v5"/><text class="axis middle number" x="${x}" y="${bottom + 19}">${timeLabel(mark, durationMs)}</text>`;
    }),
    ...layers.toReversed().map((layer, i) => key(layer, history, TOP + i * 24)),
  ]);
}

/** Groups layers by domain in its colour; the busiest of a domain has the strongest shade. */
function layersOf(history: History): Layer[] {
  const { rows, domains, durationMs } = history;
  const count = Math.floor((RIGHT - LEFT) / COLUMN);
  if (durationMs <= 0) return [];
  const busy = rows.filter(({ ranMs }) => ranMs > 0).sort((a, b) => b.ranMs - a.ranMs);
  const most = busy.slice(0, LAYERS).filter(({ ranMs }) => ranMs > LITTLE * durationMs);
  const chosen = Map.groupBy(most, ({ domain }) => domain);
  const layers: Layer[] = domains.flatMap(({ id, name: domain }) =>
    (chosen.get(id) ?? []).map((row, i) => ({
      name: `${row.kernelThread ? `[${row.comm}]` : row.comm} ${row.pid}`,
      domain,
      ranMs: row.ranMs,
      colour: colourOf(history, id),
      opacity: SHADES[Math.min(i, SHADES.length - 1)]!,
      ran: sum([row], durationMs, count),
    })),
  );
  const rest = busy.slice(most.length);
  if (rest.length > 0) {
    const ranMs = rest.reduce((total, row) => total + row.ranMs, 0);
    const ran = sum(rest, durationMs, count);
    layers.push({ name: `${rest.length} more`, domain: '', ranMs, colour: 'rest', opacity: 1, ran });
  }
  return layers;
}

function sum(rows: readonly TracedProcess[], durationMs: number, count: number): Float64Array {
  const total = new Float64Array(count);
  for (const row of rows) {
    for (const [i, { ran }] of columnsOf(row.spans, durationMs, count).entries()) total[i]! += ran;
  }
  return total;
}

/**
 * Height of the picture in whole CPUs, at most those that exist. A guest that counts ticks catches up on those that its
 * host withheld, and then seems to have run more.
 */
function ceiling(layers: readonly Layer[], { domains }: History): number {
  const columns = layers[0]?.ran.length ?? 0;
  const heights = Array.from({ length: columns }, (_, i) =>
    layers.reduce((sum, { ran }) => sum + ran[i]!, 0),
  );
  const most = heights.reduce((a, b) => Math.max(a, b), 0);
  const vcpus = domains.reduce((sum, domain) => sum + domain.vcpus, 0);
  return Math.max(1, Math.min(Math.ceil(most - 0.02), Math.ceil(vcpus)));
}

/** An area between two stepped lines; equal neighbours are one step. */
function area(base: Float64Array, ran: Float64Array, top: number): string {
  const y = (value: number) => round(TOP + HEIGHT - (Math.min(value, top) / top) * HEIGHT, 1);
  const line = (values: (i: number) => number, isBack: boolean) => {
    const points: string[] = [];
    for (let n = 0; n < ran.length; n++) {
      const i = isBack ? ran.length - 1 - n : n;
      const [from, to] = isBack ? [i + 1, i] : [i, i + 1];
      const last = isBack ? i + 1 : i - 1;
      const height = y(values(i));
      if (n === 0 || height !== y(values(last))) points.push(`${LEFT + from * COLUMN} ${height}`);
      const next = isBack ? i - 1 : i + 1;
      const isEnd = n === ran.length - 1;
      if (isEnd || height !== y(values(next))) points.push(`${LEFT + to * COLUMN} ${height}`);
    }
    return points;
  };
  const upper = line((i) => base[i]! + ran[i]!, false);
  const lower = line((i) => base[i]!, true);
  return `M${[...upper, ...lower].join('L')}z`;
}

function levels(top: number): string[] {
  const step = Math.max(1, Math.ceil(top / 6));
  const marks = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  return marks.map((value) => {
    const y = round(TOP + HEIGHT - (value / top) * HEIGHT, 1);
    const unit = value === 1 ? 'CPU' : 'CPUs';
    return `<path class="grid" d="M${LEFT - 5} ${y}h5"/><text class="axis end number" x="${LEFT - 9}" y="${y + 4}">${value === 0 ? '0' : `${value} ${unit}`}</text>`;
  });
}

function key({ name, domain, ranMs, colour, opacity }: Layer, { durationMs }: History, y: number): string {
  const x = RIGHT + 24;
  const shown = clip(name, 150, 12.5);
  return [
    `<rect class="${colour}" fill-opacity="${opacity}" x="${x}" y="${y + 3}" width="14" height="14" rx="3"/>`,
    `<text class="name" x="${x + 22}" y="${y + 14.5}">${xml(shown)}<tspan class="unit" dx="8">${xml(clip(domain, 90, 11))}</tspan></text>`,
    `<text class="number end" x="${WIDTH - MARGIN}" y="${y + 14.5}">${percent(ranMs / durationMs)}</text>`,
  ].join('');
}
