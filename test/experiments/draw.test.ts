import test from 'ava';
import { draw } from './draw.ts';

test('a picture is a whole SVG document that needs nothing else, and the same one each time', async (t) => {
  const spec = {
    title: 'Bars & more',
    data: {
      values: [
        { name: 'one', value: 1 },
        { name: 'two', value: 2 },
      ],
    },
    mark: 'bar',
    encoding: { x: { field: 'value', type: 'quantitative' }, y: { field: 'name', type: 'nominal' } },
  } as const;
  const svg = await draw(structuredClone(spec));
  t.regex(svg, /^<svg [\s\S]*<\/svg>\n$/);
  t.is(svg.match(/aria-roledescription="bar"/g)?.length, 2);
  t.true(svg.includes('Bars &amp; more'));
  t.notRegex(svg, /<script|<image|href=/);
  t.is(await draw(structuredClone(spec)), svg);
});
