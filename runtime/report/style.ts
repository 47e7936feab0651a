import type { History } from './collect.ts';

/** Colours of domains on a light and on a dark page. Their lightness distinguishes them for any colour vision. */
export const DOMAIN_COLOURS = [
  ['#2563c9', '#6ea8ff'],
  ['#0b8079', '#45cdbf'],
  ['#7d3fc4', '#bd97ff'],
  ['#3c7d22', '#8bd067'],
  ['#b0307d', '#f58ac8'],
  ['#4f6076', '#a9b8cc'],
  ['#8a6a00', '#dfc04a'],
  ['#96502a', '#e2a27a'],
] as const;

/** CSS class of a domain's marks, the same in every picture of a history. */
export function colourOf({ domains }: History, id: string): string {
  const index = domains.findIndex((domain) => domain.id === id);
  return `d${Math.max(0, index) % DOMAIN_COLOURS.length}`;
}

function coloursFor(scheme: 0 | 1): string {
  return DOMAIN_COLOURS.map((pair, i) => `.d${i}{fill:${pair[scheme]}}.s${i}{stroke:${pair[scheme]}}`).join(
    '',
  );
}

/** Style of the pictures: follows the reader's light or dark setting. */
export const PICTURE_STYLE = [
  '<style>',
  'text{font-family:system-ui,"Segoe UI","DejaVu Sans",sans-serif;font-size:12.5px;fill:#1c2430}',
  '.page{fill:#fff}.title{font-size:22px;font-weight:700}.facts{font-size:13px;fill:#5a6675}',
  '.name{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;font-size:12.5px}',
  '.pid,.unit,.axis,.more{fill:#5f6b7a;font-size:11px;font-weight:400}.domain{font-size:14.5px;font-weight:700}',
  '.end{text-anchor:end}.middle{text-anchor:middle}.number{font-variant-numeric:tabular-nums}',
  '.track{fill:#eef1f5}.grid{stroke:#c9d1db;stroke-width:1}.line{stroke:#dfe4ea;stroke-width:1}',
  '.waited{opacity:.26}.hold{fill:#ffe9c2;stroke:#c97700;stroke-width:1}.stripe{stroke:#e2941a;stroke-width:2.5}',
  '.why{font-size:10.5px;font-weight:600;fill:#7a4700}.whyback{fill:#ffe9c2}.bad,.error{fill:#c22f2f}.cross{stroke:#c22f2f;stroke-width:2;fill:none}',
  '.gap{stroke:#fff;stroke-width:.75}.rest{fill:#b9c2cd}.nice{fill:#1c2430;stroke:#fff;stroke-width:1.5}.bar{opacity:.85}',
  coloursFor(0),
  '@media(prefers-color-scheme:dark){text{fill:#e8edf3}.page{fill:#12161c}.facts{fill:#a9b4c2}',
  '.pid,.unit,.axis,.more{fill:#8b97a6}.track{fill:#1c232c}.grid{stroke:#36404c}.line{stroke:#29313b}',
  '.waited{opacity:.32}.hold{fill:#4a3210;stroke:#e8a33a}.stripe{stroke:#a06c1c}.why{fill:#ffd591}.whyback{fill:#4a3210}',
  '.rest{fill:#4d5866}.nice{fill:#e8edf3;stroke:#12161c}.bad,.error{fill:#ff8d8d}.cross{stroke:#ff8d8d}.gap{stroke:#12161c}',
  coloursFor(1),
  '}</style>',
].join('');

/** The hatch of held periods. */
export const HATCH =
  '<defs><pattern id="held" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">' +
  '<path class="stripe" d="M0 0v7"/></pattern></defs>';

/** Cuts text to `width` px at about `size` px per em. */
export function clip(text: string, width: number, size: number): string {
  const room = Math.floor(width / (size * 0.61));
  return text.length <= room ? text : room < 2 ? '' : `${text.slice(0, room - 1)}…`;
}
