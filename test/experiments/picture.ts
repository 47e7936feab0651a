import type { TopLevelSpec } from 'vega-lite';

/** A picture as data, in the grammar of Vega-Lite. */
export type PictureSpec = TopLevelSpec;

/** Lightness tells these apart for any colour vision. */
export const COLOURS = ['#0b3d91', '#c97700', '#5a6675', '#0b8079', '#b0307d'] as const;

/** Names of rows beside the rows. */
export const SIDE_LABEL = { labelAngle: 0, labelAlign: 'left', labelFontSize: 12 } as const;
