import { xml } from '../layout/picture/xml.ts';
import { culpritName } from '../tick/culprit.ts';
import type { History, TracedWait } from './collect.ts';
import { lengthOf, round } from './scale.ts';
import { MARGIN, sheet, WIDTH } from './sheet.ts';
import { clip, colourOf } from './style.ts';

const LEFT = 260;
const RIGHT = WIDTH - 110;
const TOP = 70;
const ROW = 30;
const BAR = 20;
/** Who waits, at most. */
const MOST_ROWS = 12;
/** A part of a bar narrower than this has no name in it, in pixels. */
const NAMED = 60;
const SHADES = [1, 0.75, 0.55, 0.4] as const;

/**
 * Draws who waited for whom as an SVG picture: a bar for each name of a process, in parts by who had the CPU meanwhile.
 */
export function waitsSvg(history: History): string {
  const victims = [...Map.groupBy(history.waits, ({ domain, comm }) => `${domain}\0${comm}`).values()]
    .map((parts) => ({ parts, waitedMs: parts.reduce((sum, { waitedMs }) => sum + waitedMs, 0) }))
    .sort((a, b) => b.waitedMs - a.waitedMs)
    .slice(0, MOST_ROWS);
  const most = Math.max(Number.MIN_VALUE, victims[0]?.waitedMs ?? 0);
  const height = TOP + victims.length * ROW + MARGIN;
  return sheet('waits', 'Who waited for whom', height, [
    ...victims.flatMap(({ parts, waitedMs }, i) => bar(history, parts, waitedMs, most, TOP + i * ROW)),
  ]);
}

function bar(
  history: History,
  parts: readonly TracedWait[],
  waitedMs: number,
  most: number,
  y: number,
): string[] {
  const { domain, comm } = parts[0]!;
  const shown: string[] = [
    `<text class="name" x="${MARGIN}" y="${y + 14.5}">${xml(clip(comm, 140, 12.5))}<tspan class="unit" dx="8">${xml(clip(domain, 80, 11))}</tspan></text>`,
    `<text class="number end" x="${WIDTH - MARGIN}" y="${y + 14.5}">${lengthOf(waitedMs)}</text>`,
  ];
  const seen = new Map<string, number>();
  let from = 0;
  for (const part of parts) {
    const { culprit, place } = part;
    const name = culpritName(culprit);
    const id = history.domains.find((each) => each.name === culprit.domain)?.id;
    const before = seen.get(id ?? '') ?? 0;
    seen.set(id ?? '', before + 1);
    const [x, end] = [from, from + part.waitedMs].map((ms) => LEFT + (ms / most) * (RIGHT - LEFT)) as [
      number,
      number,
    ];
    from += part.waitedMs;
    const where = place === 'guest' ? 'in its guest' : 'on the host';
    const shade = SHADES[Math.min(before, SHADES.length - 1)];
    const colour = id === undefined ? 'rest' : colourOf(history, id);
    shown.push(
      `<rect class="${colour} gap" fill-opacity="${shade}" x="${round(x, 1)}" y="${y}" width="${round(end - x, 1)}" height="${BAR}"><title>${xml(`${name}: ${lengthOf(part.waitedMs)} ${where}`)}</title></rect>`,
    );
    if (end - x >= NAMED)
      shown.push(
        `<text class="axis" x="${round(x + 6, 1)}" y="${y + 14.5}">${xml(clip(name, end - x - 12, 11))}</text>`,
      );
  }
  return shown;
}
