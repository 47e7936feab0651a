import { xml } from '../layout/picture/xml.ts';
import { PICTURE_STYLE } from './style.ts';

/** Of all pictures, in pixels. */
export const MARGIN = 24;
export const WIDTH = 1240;

/**
 * A picture of its own: a page with a title.
 * @param id sets its title apart from those of other pictures on one page
 */
export function sheet(id: string, title: string, height: number, drawn: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="${id}-title">`,
    `<title id="${id}-title">${xml(title)}</title>`,
    PICTURE_STYLE,
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="${MARGIN}" y="42">${xml(title)}</text>`,
    ...drawn,
    '</svg>\n',
  ].join('\n');
}
