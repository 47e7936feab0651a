import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { COLOURS, type PictureSpec } from './picture.ts';

/** Looks the same on a light and on a dark page. */
const LOOK = {
  background: '#ffffff',
  padding: 12,
  config: {
    font: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif',
    view: { stroke: null },
    axis: { labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal', gridColor: '#dfe4ea' },
    legend: { labelFontSize: 12, titleFontSize: 12, orient: 'bottom', labelLimit: 400 },
    title: { fontSize: 15, anchor: 'start', subtitleFontSize: 12, subtitleColor: '#5a6675', offset: 12 },
    range: { category: [...COLOURS] },
  },
} as const;

/** @returns a whole SVG document */
export async function draw(spec: PictureSpec): Promise<string> {
  const { spec: program } = compile({ ...LOOK, ...spec } as TopLevelSpec);
  const view = new View(parse(program), { renderer: 'none' });
  try {
    return `${await view.toSVG()}\n`;
  } finally {
    view.finalize();
  }
}
