import { styleText } from 'node:util';
import type { Tick, TickDomain } from '../tick/tick.ts';
import { duration } from './duration.ts';
import { KEYS } from './keys.ts';
import { entriesOf, isHeld, type TopEntry, type TopView } from './view.ts';

export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
  /** Whether the last line lists the keys. */
  readonly keys: boolean;
}

/** A picture of one tick. */
export interface TopPicture {
  readonly lines: readonly string[];
  /** Visible lines of the list. */
  readonly page: number;
  /** Greatest scroll position of the list. */
  readonly last: number;
}

type TextStyle = Parameters<typeof styleText>[0];

/** Domains with lines of their own take at most this part of the screen. */
const DOMAINS_PART = 0.3;
const GAUGE = 20;
const HEAD = ['DOMAIN', 'PID', 'STATE', 'NI', 'CPU %', 'TIME', 'COMMAND', 'HELD'] as const;
const RIGHT: ReadonlySet<string> = new Set(['PID', 'NI', 'CPU %', 'TIME']);
const WIDEST_NAME = 24;

/** Draws a tick within the screen's width and height. A guest's characters cannot act as control characters. */
export function frame(now: Tick, view: TopView, screen: Screen): TopPicture {
  const { rows } = screen;
  const paint = painter(screen);
  const entries = entriesOf(now, view);
  const head = [paint(summary(now, entries, view), 'bold'), ...domainLines(now, screen, paint), ''];
  const foot = screen.keys && rows > 8 ? [paint(keyLine(view), 'dim')] : [];
  const page = Math.max(1, rows - head.length - foot.length - 1);
  const last = Math.max(0, entries.length - page);
  const from = Math.min(view.top, last);
  const shown = entries.slice(from, from + page);
  const cells = [[...HEAD], ...shown.map(cellsOf)];
  const widths = HEAD.map((_, column) =>
    cells.reduce((most, line) => Math.max(most, line[column]!.length), 0),
  );
  const texts = cells.map((line) =>
    line
      .map((cell, column) =>
        RIGHT.has(HEAD[column]!) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join('  ')
      .trimEnd(),
  );
  const list = texts.map((text, i) => paint(text, i === 0 ? 'inverse' : formatOf(shown[i - 1]!)));
  const lines = [...head, ...list].slice(0, Math.max(0, rows - foot.length));
  return { lines: [...lines, ...foot].slice(0, rows), page, last };
}

type Paint = (text: string, format?: TextStyle) => string;

/** Makes a function that cuts a line to the screen's width, then colours it. */
function painter({ columns, colour }: Screen): Paint {
  return (text, format) => {
    const cut = safe(text).slice(0, Math.max(0, columns));
    return colour && format !== undefined && cut !== ''
      ? styleText(format, cut, { validateStream: false })
      : cut;
  };
}

/** One column per character, and nothing that a terminal acts upon. */
function safe(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?');
}

function summary(now: Tick, entries: readonly TopEntry[], view: TopView): string {
  const { domains, tick, elapsedMs, missed, time } = now;
  const processes = domains.reduce((sum, domain) => sum + domain.processes.length, 0);
  const held = entries.filter(isHeld).length;
  return [
    `domsched: ${domains.length} domains`,
    `${processes} processes`,
    `${held} held`,
    `tick ${tick}${elapsedMs > 0 ? ` of ${Math.round(elapsedMs)} ms` : ''}`,
    ...(missed > 0 ? [`${missed} missed`] : []),
    `${time.slice(11, 19)} UTC`,
    ...(view.paused ? ['STANDS STILL'] : []),
  ].join(', ');
}

function domainLines({ domains, elapsedMs }: Tick, { rows, columns }: Screen, paint: Paint): string[] {
  const room = Math.max(0, Math.floor(rows * DOMAINS_PART));
  const ran = (domain: TickDomain) =>
    elapsedMs > 0 ? domain.processes.reduce((sum, { ranNs }) => sum + ranNs, 0) / 1e6 / elapsedMs : 0;
  // Unreadable domains come first, since they need attention.
  const all = domains
    .map((domain) => ({ domain, share: ran(domain) }))
    .sort(
      (a, b) =>
        Number(b.domain.error !== undefined) - Number(a.domain.error !== undefined) || b.share - a.share,
    );
  // The chosen domains keep their places from tick to tick.
  const shown = all
    .slice(0, all.length > room ? Math.max(0, room - 1) : room)
    .sort((a, b) => (a.domain.name < b.domain.name ? -1 : 1));
  const widest = shown.reduce((most, { domain }) => Math.max(most, domain.name.length), 0);
  const width = Math.min(WIDEST_NAME, widest);
  const lines = shown.map(({ domain: { name, vcpus, kernel, error }, share }) => {
    const label = fit(name, width);
    if (error !== undefined) return paint(`${label}  ${error.message} [${error.code}]`, 'red');
    const part = vcpus > 0 ? Math.min(1, Math.max(0, share / vcpus)) : 0;
    const filled = Number.isFinite(part) ? Math.round(part * GAUGE) : 0;
    const gauge = columns > 60 ? `[${'|'.repeat(filled).padEnd(GAUGE)}] ` : '';
    // A domain of another host: how many CPUs it has is not told.
    const cpus =
      vcpus > 0
        ? `${gauge}${percent(share).padStart(6)} % of ${vcpus} CPUs`
        : `${percent(share).padStart(6)} % of a CPU`;
    return paint(`${label}  ${cpus}  ${kernel ?? ''}`.trimEnd());
  });
  const more = all.length - shown.length;
  return more > 0 && room > 0 ? [...lines, paint(`and ${more} more domains`, 'dim')] : lines;
}

function cellsOf(entry: TopEntry): string[] {
  const { process, domain, share } = entry;
  const { held } = process;
  return [
    safe(fit(domain.name, Math.min(WIDEST_NAME, domain.name.length))),
    String(process.pid),
    held === undefined ? process.state : 'held',
    String(process.nice),
    percent(share),
    duration(process.cpuNs),
    safe(process.kernelThread ? `[${process.comm}]` : process.comm),
    held === undefined ? '' : safe(`${held.policy}: ${held.reason}`),
  ];
}

function formatOf(entry: TopEntry): TextStyle | undefined {
  if (isHeld(entry)) return 'yellow';
  if (entry.process.state === 'running') return 'green';
  return entry.share === 0 && entry.process.state === 'sleeping' ? 'dim' : undefined;
}

function percent(share: number): string {
  const value = share * 100;
  return Number.isFinite(value) ? value.toFixed(1) : '?';
}

function fit(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, Math.max(0, width - 1))}~` : text.padEnd(width);
}

function keyLine(view: TopView): string {
  const keys = KEYS.map(([key, does]) => `${key} ${does}`).join('  ');
  return `by ${view.sort}${view.reversed ? ', reversed' : ''}   ${keys}`;
}
