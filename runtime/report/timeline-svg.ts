import { xml } from '../layout/picture/xml.ts';
import type { HeldPeriod, History, TimedAction, TracedProcess } from './collect.ts';
import { columnsOf, lengthOf, percent, round, timeLabel, timeMarks } from './scale.ts';
import { type DomainGroup, select } from './select.ts';
import { MARGIN, sheet, WIDTH } from './sheet.ts';
import { clip, colourOf, HATCH } from './style.ts';

/** Left and right end of the time axis. */
const LEFT = 236;
const RIGHT = WIDTH - 204;
const TIME = RIGHT - LEFT;
const COLUMN = 2;
const ROW = 26;
const BAR = 20;
const DOMAIN = 36;
const HEAD = 132;
/** The processes without a row get a line from this part of one CPU on. */
const WORTH_A_LINE = 0.001;
export const DEFAULT_ROWS = 40;

/**
 * Draws the timeline as an SVG picture, after Figure 8 of the paper: one row per process, bars as high as its CPU
 * share, hatched while it was held.
 * @param most rows at most
 */
export function timelineSvg(history: History, most = DEFAULT_ROWS): string {
  const groups = select(history, most).filter(({ rows, domain }) => rows.length > 0 || !domain.isReadable);
  const parts: string[] = [];
  let y = HEAD;
  for (const group of groups) {
    parts.push(drawDomain(group, history, y));
    y += DOMAIN;
    for (const row of group.rows) {
      parts.push(drawRow(row, history, colourOf(history, row.domain), y));
      y += ROW;
    }
    const { count, ranMs } = group.others;
    const share = part(ranMs, history.durationMs);
    if (group.rows.length > 0 && share >= WORTH_A_LINE) {
      const more = `${count} more ${count === 1 ? 'process' : 'processes'}, together ${percent(share)}`;
      parts.push(`<text class="more" x="${MARGIN + 12}" y="${y + 14}">${more}</text>`);
      y += 24;
    }
    y += 6;
  }
  if (groups.length === 0) {
    parts.push(`<text class="facts" x="${MARGIN}" y="${y + 20}">No process ran or was held.</text>`);
    y += 36;
  }
  const height = y + 34;
  return sheet('timeline', 'Processes of all domains over time', height, [
    HATCH,
    `<text class="facts" x="${MARGIN}" y="65">${xml(factsOf(history))}</text>`,
    legend(),
    `<text class="axis end" x="${RIGHT + 110}" y="${HEAD - 8}">of one CPU</text>`,
    `<text class="axis end" x="${WIDTH - MARGIN}" y="${HEAD - 8}">held</text>`,
    axis(history.durationMs, y),
    ...parts,
  ]);
}

/** One line of facts about the trace. */
export function factsOf(history: History): string {
  const { hosts, started, durationMs, ticks, missed, actions } = history;
  const done = actions.filter(({ outcome }) => outcome === 'done').length;
  return [
    `${started.replace('T', ' ').replace(/\.\d+Z$/, ' UTC')}`,
    lengthOf(durationMs),
    ...(hosts === undefined ? [] : [`${hosts.length} hosts, each by its own clock`]),
    `${ticks} samples${ticks > 1 && hosts === undefined ? `, one each ${lengthOf(durationMs / (ticks - 1))}` : ''}`,
    ...(missed > 0 ? [`${missed} missed`] : []),
    `${done} ${done === 1 ? 'edit' : 'edits'}`,
  ].join('  ·  ');
}

function legend(): string {
  const y = 84;
  const parts: string[] = [];
  let x = MARGIN;
  const entry = (shape: string, text: string) => {
    parts.push(shape, `<text class="facts" x="${x + 30}" y="${y + 12}">${text}</text>`);
    x += 30 + text.length * 6.9 + 20;
  };
  entry(
    `<path class="d0" d="M${x} ${y + 6}h8v8h-8zM${x + 8} ${y}h8v14h-8zM${x + 16} ${y + 9}h8v5h-8z"/>`,
    'ran: height is its share of one CPU',
  );
  entry(
    `<rect class="d0 waited" x="${x}" y="${y}" width="24" height="14"/>`,
    'could have run more, waited for a CPU',
  );
  entry(
    `<rect class="hold" x="${x}" y="${y}" width="24" height="14"/><rect fill="url(#held)" x="${x}" y="${y}" width="24" height="14"/>`,
    'held by domsched',
  );
  entry(`<rect class="track" x="${x}" y="${y}" width="24" height="14"/>`, 'slept');
  return parts.join('');
}

function axis(durationMs: number, bottom: number): string {
  if (durationMs <= 0) return '';
  return timeMarks(durationMs, 11)
    .map((mark) => {
      const x = round(LEFT + place(mark, durationMs), 1);
      const label = timeLabel(mark, durationMs);
      const text = (y: number) => `<text class="axis middle number" x="${x}" y="${y}">${label}</text>`;
      return `<path class="grid" d="M${x} ${HEAD - 2}V${bottom}"/>${text(HEAD - 8)}${text(bottom + 16)}`;
    })
    .join('');
}

function drawDomain({ domain }: DomainGroup, { durationMs }: History, y: number): string {
  const facts = [
    ...(domain.kernel === undefined ? [] : [`Linux ${domain.kernel}`]),
    `${domain.vcpus} ${domain.vcpus === 1 ? 'vCPU' : 'vCPUs'}`,
    domain.hypervisor,
  ].filter((fact) => fact !== '');
  const { error: reason, isReadable } = domain;
  const error = isReadable || reason === undefined ? '' : `${reason.message} [${reason.code}]`;
  const name = clip(domain.name, 420, 14.5);
  return [
    `<path class="line" d="M${MARGIN} ${y + 4.5}H${WIDTH - MARGIN}"/>`,
    `<text class="domain" x="${MARGIN}" y="${y + 25}">${xml(name)}<tspan class="unit" dx="10">${xml(facts.join('  ·  '))}</tspan>`,
    error === ''
      ? ''
      : `<tspan class="unit error" dx="10">${xml(clip(error, WIDTH - 520 - name.length * 9, 11))}</tspan>`,
    '</text>',
    `<text class="unit end number" x="${RIGHT + 110}" y="${y + 25}">${percent(part(domain.ranMs, durationMs))}</text>`,
  ].join('');
}

function drawRow(row: TracedProcess, history: History, colour: string, y: number): string {
  const { durationMs } = history;
  const top = y + (ROW - BAR) / 2;
  const share = part(row.ranMs, durationMs);
  const name = row.kernelThread ? `[${row.comm}]` : row.comm;
  const label = clip(name, 148, 12.5);
  const mine = history.actions.filter(({ domain, pid }) => domain === row.domain && pid === row.pid);
  return [
    '<g>',
    `<title>${xml(`${name}, process ${row.pid}: ${lengthOf(row.ranMs)} of CPU time, held for ${lengthOf(row.heldMs)}`)}</title>`,
    `<text class="name" x="${MARGIN + 12}" y="${y + 17.5}">${xml(label)}</text>`,
    `<text class="pid end number" x="${LEFT - 10}" y="${y + 17}">${row.pid}</text>`,
    trackOf(row, durationMs, top),
    ...row.held.map((held) => drawHeld(held, durationMs, top)),
    ...bars(row, durationMs, colour, top),
    ...row.held.map((held) => heldLabel(held, durationMs, top)),
    ...mine.map((action) => mark(action, durationMs, top)),
    `<rect class="track" x="${RIGHT + 12}" y="${y + 9}" width="50" height="8" rx="2"/>`,
    `<rect class="bar ${colour}" x="${RIGHT + 12}" y="${y + 9}" width="${round(Math.min(1, share) * 50, 1)}" height="8" rx="2"/>`,
    `<text class="number end" x="${RIGHT + 110}" y="${y + 17.5}">${percent(share)}</text>`,
    row.heldMs > 0
      ? `<text class="number end" x="${WIDTH - MARGIN}" y="${y + 17.5}">${lengthOf(row.heldMs)}</text>`
      : '',
    '</g>',
  ].join('');
}

/** The time in which the process existed. */
function trackOf({ first, last }: TracedProcess, durationMs: number, top: number): string {
  const [x, width] = durationMs > 0 ? extent(first, last, durationMs) : [LEFT, TIME];
  return `<rect class="track" x="${x}" y="${top}" width="${width}" height="${BAR}"/>`;
}

/** Bars: what it ran from the row's bottom up, and above that what it wanted to run. */
function bars(row: TracedProcess, durationMs: number, colour: string, top: number): string[] {
  if (durationMs <= 0) return [];
  const count = Math.floor(TIME / COLUMN);
  const bottom = top + BAR;
  const ran = new BoxPath(bottom);
  const waited = new BoxPath(bottom);
  columnsOf(row.spans, durationMs, count).forEach((column, i) => {
    // Show even the smallest run.
    const height = column.ran > 0.001 ? Math.max(1, Math.min(1, column.ran) * BAR) : 0;
    const above = Math.min(BAR - height, column.waited * BAR);
    ran.add(i, 0, Math.round(height * 2) / 2);
    waited.add(i, Math.round(height * 2) / 2, Math.round(above));
  });
  return [
    ...(waited.path === '' ? [] : [`<path class="${colour} waited" d="${waited.path}"/>`]),
    ...(ran.path === '' ? [] : [`<path class="${colour}" d="${ran.path}"/>`]),
  ];
}

/** Boxes side by side as one path; equal neighbours become one box. */
class BoxPath {
  readonly #bottom: number;
  #boxes = '';
  #from = 0;
  #to = 0;
  #base = 0;
  #height = 0;

  constructor(bottom: number) {
    this.#bottom = bottom;
  }

  add(column: number, base: number, height: number): void {
    if (height === this.#height && base === this.#base && column === this.#to) {
      this.#to++;
      return;
    }
    this.#flush();
    this.#from = column;
    this.#to = column + 1;
    this.#base = base;
    this.#height = height;
  }

  get path(): string {
    this.#flush();
    return this.#boxes;
  }

  #flush(): void {
    if (this.#height > 0) {
      const width = (this.#to - this.#from) * COLUMN;
      const y = this.#bottom - this.#base;
      this.#boxes += `M${LEFT + this.#from * COLUMN} ${y}h${width}v${-this.#height}h${-width}z`;
    }
    this.#height = 0;
  }
}

function drawHeld({ from, to }: HeldPeriod, durationMs: number, top: number): string {
  const [x, width] = extent(from, to, durationMs);
  const box = `x="${x}" y="${top + 0.5}" width="${width}" height="${BAR - 1}"`;
  return `<rect class="hold" ${box}/><rect fill="url(#held)" ${box}/>`;
}

function heldLabel({ from, to, policy, reason }: HeldPeriod, durationMs: number, top: number): string {
  const [x, width] = extent(from, to, durationMs);
  const why = `held ${lengthOf(to - from)}, ${policy}: ${reason}`;
  const text = clip(policy, width - 16, 10.5);
  const tip = `<title>${xml(why)}</title>`;
  const cover = `<rect fill="transparent" x="${x}" y="${top}" width="${width}" height="${BAR}"/>`;
  if (text.length < 3) return `<g>${tip}${cover}</g>`;
  const room = text.length * 6.5 + 8;
  const middle = round(x + width / 2, 1);
  return `<g>${tip}<rect class="whyback" x="${round(middle - room / 2, 1)}" y="${top + 3.5}" width="${round(room, 1)}" height="13" rx="3"/><text class="why middle" x="${middle}" y="${top + 14}">${xml(text)}</text>${cover}</g>`;
}

/** Marks what no bar shows: refused or failed edits, and nice values. */
function mark(action: TimedAction, durationMs: number, top: number): string {
  const x = round(LEFT + place(action.at, durationMs), 1);
  const tip = `<title>${xml(`${action.action} ${action.outcome}${action.code === undefined ? '' : ` [${action.code}]`}, ${action.policy}: ${action.reason}`)}</title>`;
  if (action.outcome !== 'done') {
    return `<g>${tip}<path class="cross" d="M${x - 4} ${top + 6}l8 8m0-8l-8 8"/></g>`;
  }
  if (action.action !== 'nice') return '';
  return `<g>${tip}<path class="nice" d="M${x} ${top + 3}l7 7l-7 7l-7-7z"/></g>`;
}

/** Left end and width of a period, never too narrow to be seen. */
function extent(from: number, to: number, durationMs: number): [number, number] {
  const x = LEFT + place(from, durationMs);
  const width = Math.max(2, place(to, durationMs) - place(from, durationMs));
  return [round(Math.min(x, RIGHT - width), 1), round(width, 1)];
}

function place(ms: number, durationMs: number): number {
  return durationMs > 0 ? (Math.min(ms, durationMs) / durationMs) * TIME : 0;
}

function part(ranMs: number, durationMs: number): number {
  return durationMs > 0 ? ranMs / durationMs : 0;
}
