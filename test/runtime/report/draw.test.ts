import test from 'ava';
import fc from 'fast-check';
import { collect } from '../../../runtime/report/collect.ts';
import { html } from '../../../runtime/report/html.ts';
import { merge } from '../../../runtime/report/merge.ts';
import { sharesSvg } from '../../../runtime/report/shares-svg.ts';
import { PICTURE_STYLE } from '../../../runtime/report/style.ts';
import { timelineSvg } from '../../../runtime/report/timeline-svg.ts';
import { waitsSvg } from '../../../runtime/report/waits-svg.ts';
import type { TickWait } from '../../../runtime/tick/tick.ts';
import { LineDecoder } from '../../../runtime/trace/decode.ts';
import { LineEncoder } from '../../../runtime/trace/encode.ts';
import { backupStory, sampleDomain, sampleTick } from '../sample-ticks.ts';
import { anyTicks } from '../trace/arbitrary.ts';

const TAGS = new Set(
  'svg,title,style,defs,pattern,path,rect,text,tspan,g,html,head,meta,body,header,h1,h2,p,main,dl,div,dt,dd,section,table,thead,tbody,tr,th,td'.split(
    ',',
  ),
);

/** Names of all tags, in the order in which they open; throws when they do not close in order. */
function tagsOf(markup: string): string[] {
  const names: string[] = [];
  const open: string[] = [];
  for (const [, end, name, closed] of markup.matchAll(/<(\/?)([a-zA-Z][\w:-]*)[^<>]*?(\/?)>/g)) {
    if (end) {
      if (open.pop() !== name) throw new Error(`</${name}> closes what is not open`);
      continue;
    }
    names.push(name!);
    if (!closed && name !== 'meta') open.push(name!);
  }
  if (open.length > 0) throw new Error(`${open} stay open`);
  return names;
}

test('whatever guests are called, a report holds no tag and no attribute but its own', async (t) => {
  await fc.assert(
    fc.asyncProperty(anyTicks(), async (ticks) => {
      const encoder = new LineEncoder();
      const decoder = new LineDecoder();
      const history = await collect(ticks.map((tick) => decoder.decode(encoder.encode(tick))));
      for (const text of [html(history), timelineSvg(history), sharesSvg(history), waitsSvg(history)]) {
        t.deepEqual(
          tagsOf(text.replace('<!doctype html>', '')).filter((name) => !TAGS.has(name)),
          [],
        );
        t.notRegex(text, /<[^>]*\son\w+=/);
        t.notRegex(text, /NaN|Infinity|undefined|\[object/);
        // Characters that XML 1.0 forbids would keep the whole picture from being shown.
        t.notRegex(text, /[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]/);
      }
    }),
    { numRuns: 60 },
  );
});

test('the backup is drawn as held three times, by name, with its reason', async (t) => {
  const svg = timelineSvg(await collect(backupStory(120)));
  const boxes = [...svg.matchAll(/<rect class="hold" x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="19"/g)];
  // 59.5 s are 800 px from 236 on; held from 5.02 s to 14 s, and again every 20 s.
  const expected = [5.02, 25.02, 45.02].map((from) => [236 + (from / 59.5) * 800, (8.98 / 59.5) * 800]);
  t.is(boxes.length, 3);
  for (const [i, [, x, width]] of boxes.entries()) {
    t.true(Math.abs(Number(x) - expected[i]![0]!) < 0.1);
    t.true(Math.abs(Number(width) - expected[i]![1]!) < 0.1);
  }
  t.is(svg.match(/<title>held 8\.98 s, idle-only: httpd of web runs<\/title>/g)?.length, 3);
  t.regex(svg, />backup<.*>200</);
  t.regex(svg, /hold refused \[lock-held\]/);
});

test('the report has every hold and every edit in its tables', async (t) => {
  const text = html(await collect(backupStory(120)));
  const [, , , held, edits] = text.split('<h2>');
  t.is(held!.match(/<tr><td/g)?.length, 3);
  t.is(edits!.match(/<tr><td/g)?.length, 8);
  t.regex(edits!, /refused \[lock-held\]/);
});

test('a guest that claimed more than its host saw is named, and how often; no column without one', async (t) => {
  const ticks = [1, 2, 3].map((tick) =>
    sampleTick(tick, [
      sampleDomain('db', []),
      sampleDomain('liar', [], tick > 1 ? { overstated: true } : {}),
    ]),
  );
  t.regex(html(await collect(ticks)), /Claims more CPU time than its host saw.*liar.*at 2 samples/s);
  t.notRegex(html(await collect(ticks.slice(0, 1))), /Claims more/);
});

test('nothing to draw is drawn as nothing', async (t) => {
  for (const ticks of [[], [...backupStory(1)]]) {
    const history = await collect(ticks);
    t.regex(timelineSvg(history), /No process ran or was held|held/);
    t.regex(html(history), /Nothing was edited/);
    t.deepEqual(
      tagsOf(sharesSvg(history)).filter((name) => !TAGS.has(name)),
      [],
    );
  }
});

test('what an operator had to see to: guests that may be half written, and a journal that could not be written', async (t) => {
  const torn = { error: { code: 'edit-torn', message: 'park <8>: may be torn; reset it' } };
  const journal = { code: 'journal-failed', message: 'make room there' };
  const story = [
    sampleTick(1, [sampleDomain('web', [])]),
    sampleTick(2, [sampleDomain('web', [], torn)], { journal }),
    sampleTick(3, [sampleDomain('web', [], torn)], { journal: { ...journal, message: 'make room in /run' } }),
    sampleTick(4, [sampleDomain('web', [], torn)]),
  ];
  const history = await collect(story);
  t.deepEqual(history.problems, [
    { ...torn.error, domain: 'web', from: 500, to: 1500, samples: 3, lasts: true },
    { ...journal, message: 'make room in /run', from: 500, to: 1000, samples: 2, lasts: false },
  ]);
  const rows = html(history)
    .split('<h2>Problems</h2>')[1]!
    .split('</table>')[0]!
    .match(/<tr><td.*<\/tr>/g)!;
  t.is(rows.length, 2);
  t.regex(rows[0]!, />0:01.5 \+<.*>3<.*>web<.*>park &lt;8&gt;: may be torn; reset it \[edit-torn\]</);
  t.regex(rows[1]!, />2<.*>this host<.*>make room in \/run \[journal-failed\]</);
  t.false(html(await collect(story.slice(0, 1))).includes('Problems'));
  const both = merge([
    { host: 'a', history },
    { host: 'b', history: await collect(story.slice(1)) },
  ]);
  t.deepEqual(
    both.problems.map(({ domain, from }) => [domain, from]),
    [
      ['a/web', 500],
      ['a', 500],
      ['b/web', 500],
      ['b', 500],
    ],
  );
});

test('who waited for whom: a bar for each, as long as its waits, in parts by culprit; none without waits', async (t) => {
  const wait = (comm: string, culprit: TickWait['culprit'], ns: number): TickWait => ({
    domain: 'db',
    comm,
    culprit,
    place: culprit.domain === 'db' ? 'guest' : 'host',
    ns,
  });
  const waits = [
    wait('postgres', { kind: 'process', domain: 'web', comm: 'gzip' }, 3e9),
    wait('postgres', { kind: 'host', comm: 'make' }, 1e9),
    wait('cron', { kind: 'process', domain: 'db', comm: 'postgres' }, 2e9),
  ];
  const domains = [sampleDomain('db', []), sampleDomain('web', [])];
  const history = await collect([sampleTick(1, domains, { waits }), sampleTick(2, domains, { waits })]);
  const svg = waitsSvg(history);
  const bars = [...svg.matchAll(/<rect class="(\w+)[^>]*width="([\d.]+)" height="20"><title>([^<]*)</g)];
  t.deepEqual(
    bars.map(([, colour, width, title]) => [colour, Number(width), title]),
    [
      ['d1', 652.5, 'web: gzip: 6 s on the host'],
      ['rest', 217.5, 'the host: make: 2 s on the host'],
      ['d0', 435, 'db: postgres: 4 s in its guest'],
    ],
  );
  t.true(html(history).includes('<h2>Waits</h2>'));
  t.false(html(await collect([sampleTick(1, domains)])).includes('Waits'));
});

test('a mark of the rest is filled, with a gap around it', (t) => {
  t.notRegex(PICTURE_STYLE, /\.rest\{[^}]*\}.*\.gap\{fill/);
});
