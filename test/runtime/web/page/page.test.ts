/** The page in Chromium, fed by the server with made-up ticks. */
import test, { type ExecutionContext } from 'ava';
import type { Page } from 'playwright-core';
import { Metrics } from '../../../../runtime/metrics/metrics.ts';
import type { Tick, TickFleetHost } from '../../../../runtime/tick/tick.ts';
import { WebServer } from '../../../../runtime/web/server.ts';
import {
  backupStory,
  isoAt,
  sampleAction,
  sampleDomain,
  sampleFleet,
  sampleProcess,
  sampleTick,
} from '../../sample-ticks.ts';
import { openPage } from './browser.ts';

const TOKEN = 'a-token-of-this-test-alone';

async function serve(t: ExecutionContext, port = 0): Promise<WebServer> {
  const metrics = new Metrics({ withoutOwn: true });
  const web = await WebServer.open({ listen: { host: '127.0.0.1', port }, token: TOKEN, metrics });
  t.teardown(() => web.close().catch(() => {}));
  return web;
}

/** The lines that the page shows, as texts. */
function linesOf(page: Page): Promise<Record<string, string>[]> {
  return page.evaluate(() =>
    [...document.querySelectorAll<HTMLElement>('#content > [role=row]:not([hidden])')]
      .sort((a, b) => Number(a.getAttribute('aria-rowindex')) - Number(b.getAttribute('aria-rowindex')))
      .map((row) => {
        const cell = (name: string) => row.querySelector(`.${name}`)?.textContent ?? '';
        const kind = row.dataset.kind ?? '';
        return { kind, name: cell('name'), pid: cell('pid'), state: cell('state'), cpu: cell('cpu') };
      }),
  );
}

function showsTick(page: Page, tick: number): Promise<unknown> {
  return page.waitForFunction(
    (wanted) => document.getElementById('facts')?.textContent?.includes(`tick ${wanted} `),
    tick,
  );
}

/** What the lines have to be, by the tick that the API gives. */
function expected(tick: Tick): Record<string, string>[] {
  const share = (ranNs: number) => {
    const percent = ranNs / 1e4 / tick.elapsedMs;
    if (percent === 0) return '';
    return `${percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`;
  };
  return tick.domains.flatMap(({ name, kernel, vcpus, hypervisor, processes }) => [
    {
      kind: 'domain',
      name,
      pid: '',
      state: `Linux ${kernel}  ·  ${vcpus} vCPUs  ·  ${hypervisor}`,
      cpu: share(processes.reduce((sum, { ranNs }) => sum + ranNs, 0)),
    },
    ...processes
      .toSorted((a, b) => a.pid - b.pid)
      .map(({ comm, pid, state, ranNs }) => ({
        kind: 'process',
        name: comm,
        pid: String(pid),
        state,
        cpu: share(ranNs),
      })),
  ]);
}

test('shows what the API says, tick by tick, and what is held and why', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const story = [...backupStory(40)];
  for (const tick of story.slice(0, 30)) web.tick(tick);
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  for (const tick of story.slice(29)) {
    if (tick.tick > 30) web.tick(tick);
    await showsTick(page, tick.tick);
    const state = (await (
      await fetch(new URL('/api/state', web.url), { headers: { authorization: `Bearer ${TOKEN}` } })
    ).json()) as Tick;
    t.is(state.tick, tick.tick);
    t.deepEqual(await linesOf(page), expected(state));
    const held = state.domains.flatMap(({ processes }) => processes.filter((process) => process.held));
    t.is(await page.locator('#held-count').textContent(), String(held.length));
  }
  // Tick 30 was the last of the hold: the page saw it, with its reason, in the edits.
  const edits = await page.locator('#edits li').allTextContents();
  t.is(edits.length, story.flatMap(({ actions }) => actions).length);
  t.regex(edits[0]!, /^release backup 200 in batch.*idle-only: nothing else runs/);
  t.regex(edits.join('\n'), /indexer 201 in batch.*refused \[lock-held\]/);
  t.is(await page.locator('#status').textContent(), 'live');
  t.deepEqual(errors, []);
});

test('who waited for whom stays shown until it is told anew', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const wait = {
    domain: 'db',
    comm: 'post\u202egres',
    culprit: { kind: 'process', domain: 'web', comm: '<b>gzip' },
    place: 'host',
    ns: 2.5e9,
  } as const;
  web.tick(sampleTick(1, [], { waits: [wait] }));
  web.tick(sampleTick(2, []));
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page } = opened;
  await showsTick(page, 2);
  const shown = () => page.locator('#waits li').allTextContents();
  t.deepEqual(await shown(), ['post\u202egres in db2.5 sfor web: <b>gzip, on the host']);
  web.tick(sampleTick(3, [], { waits: [] }));
  await showsTick(page, 3);
  t.deepEqual(await shown(), ['Nothing waited.']);
});

test('the hosts of the fleet: who was heard when, what works there, and who is held here for whom', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const evil = '</li><img src=x onerror=alert(1)>';
  const work = (comm: string, share: number, waits = false) => ({ domain: 'db', comm, share, waits });
  const host = (name: string, heardMs: number, more: Partial<TickFleetHost> = {}): TickFleetHost => ({
    host: name,
    state: 'active',
    heardMs,
    classes: [],
    ...more,
  });
  const held = { policy: 'backups', reason: 'host-2/db: postgres (7) runs', since: isoAt(0) };
  const backup = sampleProcess({ pid: 10, comm: 'restic', state: 'held', held, heldFor: 'host-2' });
  const batch = sampleDomain('batch', [backup, sampleProcess({ pid: 11 })]);
  const heard = [
    host('host-1', 9_000, { state: 'at rest' }),
    host('host-2', 9_500, { revision: 3, classes: [work('postgres', 0.1, true), work(evil, 1)] }),
    host(evil, 1_000, { state: 'silent', classes: [{ ...work('x', 0.01), domain: evil }] }),
  ];
  const tick = (number: number, facts: Partial<Tick>) =>
    web.tick(sampleTick(number, [batch], { ms: 10_000, ...facts }));
  tick(1, { fleet: sampleFleet({ heard, hosts: 5 }) });
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  await showsTick(page, 1);
  const hosts = () => page.locator('#hosts > li').allTextContents();
  t.deepEqual(await hosts(), [
    `host-2 active · policy 30.5 s agodb: postgres from 10 %, waits for a CPU; db: ${evil} from 100 %held here for it: restic 10 in batch`,
    `${evil} silent9.0 s agowhen last heard, ${evil}: x from 1 %`,
    'host-1 at rest1.0 s agonothing at work',
    'and 2 more',
  ]);
  t.is(await page.locator('#fleet-count').textContent(), '5');
  t.is(await page.locator('#fleet-state').textContent(), 'here: connected for 1 min 0 s; policy 3');
  t.regex((await page.locator('#held li').allTextContents())[0]!, /postgres \(7\) runs; now for host-2$/);
  await page.locator('#content > [role=row]', { hasText: 'restic' }).click();
  t.regex((await page.locator('#details').textContent())!, /now forhost-2 \(db: postgres, db: <\/li>/);
  t.is(await page.locator('#hosts img').count(), 0);

  // It is heard again, is not waited for any longer, and the others are gone.
  const free = sampleDomain('batch', [sampleProcess({ pid: 10, comm: 'restic' })]);
  const later = sampleFleet({
    heard: [host('host-2', 10_000, { revision: 3 })],
    connected: false,
    sinceMs: 2_000,
  });
  web.tick(sampleTick(2, [free], { ms: 10_500, fleet: later }));
  await showsTick(page, 2);
  t.deepEqual(await hosts(), ['host-2 active · policy 30.5 s agonothing at work']);
  t.is(
    await page.locator('#fleet-state').textContent(),
    'here: cut off for 2.0 s, goes on by itself; policy 3',
  );
  t.is(
    await page
      .locator('#details')
      .textContent()
      .then((text) => text!.includes('now for')),
    false,
  );
  web.tick(sampleTick(3, [free], { ms: 11_000 }));
  await showsTick(page, 3);
  t.true(await page.locator('#fleet').isHidden());
  t.deepEqual(errors, []);
});

test('a guest that may be half written, and a journal that cannot be written: why, and what to do', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const torn = { code: 'edit-torn', message: 'park: THIS EDIT MAY BE TORN <img src=x>; reset it' };
  const batch = { ...sampleDomain('batch', []), error: torn };
  const journal = { code: 'journal-failed', message: 'full: make room there', since: isoAt(0) };
  web.tick(sampleTick(1, [batch], { journal }));
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  await showsTick(page, 1);
  const [first, second, ...others] = await page.locator('#problems > li').allTextContents();
  t.is(first, `batch: ${torn.message} [edit-torn]`);
  t.regex(second!, /^full: make room there since .*\d.* \[journal-failed\]$/);
  t.deepEqual(others, []);
  t.true(await page.locator('#problems').isVisible());
  t.is(await page.locator('#problems img').count(), 0);
  web.tick(sampleTick(2, [sampleDomain('batch', [])]));
  await showsTick(page, 2);
  t.true(await page.locator('#problems').isHidden());
  t.deepEqual(errors, []);
});

test('a thousand hosts leave the page as small as a hundred', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const heard = Array.from({ length: 200 }, (_, i) => ({
    host: `host-${i}`,
    state: 'active' as const,
    heardMs: 0,
    classes: [],
  }));
  web.tick(sampleTick(1, [], { fleet: sampleFleet({ heard, hosts: 1_000 }) }));
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  await showsTick(page, 1);
  t.is(await page.locator('#hosts > li').count(), 101);
  t.is(await page.locator('#hosts > li').last().textContent(), 'and 900 more');
  const heightOf = async (name: string) =>
    (await page.locator(`aside section[aria-labelledby="${name}-title"]`).boundingBox())!.height;
  const [hosts, edits] = [await heightOf('fleet'), await heightOf('edits')];
  web.tick(sampleTick(2, [], { fleet: sampleFleet({ heard: heard.slice(0, 1), hosts: 1, few: true }) }));
  await showsTick(page, 2);
  t.deepEqual(await page.locator('#hosts > li').allTextContents(), [
    (await page.locator('#hosts > li').first().textContent())!,
    'More are at work; these are enough for the policies here.',
  ]);
  // What few hosts leave free the edits get.
  t.true((await heightOf('fleet')) < hosts);
  t.true((await heightOf('edits')) >= edits && edits >= 140);
  t.deepEqual(errors, []);
});

test('the timeline is drawn from the samples: what ran, what was held, what slept', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  for (const tick of backupStory(121)) web.tick(tick);
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page } = opened;
  await showsTick(page, 121);
  await page.selectOption('#window', '60');
  // Colours along the middle of a row's canvas, and just above its bottom.
  const colours = (comm: string) =>
    page.evaluate(async (name) => {
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      const row = [...document.querySelectorAll<HTMLElement>('#content > [role=row]')].find(
        (candidate) => candidate.querySelector('.name')?.textContent === name,
      )!;
      const canvas = row.querySelector('canvas')!;
      const context = canvas.getContext('2d')!;
      // 60 s are the whole width: one pixel in the middle of each tick's time.
      return Array.from({ length: 120 }, (_, i) => {
        const x = Math.floor(((i + 0.5) / 120) * canvas.width);
        const at = (y: number) =>
          [...context.getImageData(x, Math.floor(y * canvas.height), 1, 1).data].join();
        return { bottom: at(0.86), middle: at(0.5) };
      });
    }, comm);
  const backup = await colours('backup');
  // Tick i + 2 of the story ends the i-th stretch of the last 60 s.
  const isHeld = (i: number) => (i + 2) % 40 >= 12 && (i + 2) % 40 < 30;
  const running = backup[0]!.bottom;
  for (const [i, { bottom }] of backup.entries()) t.is(bottom === running, !isHeld(i), `stretch ${i}`);
  const systemd = await colours('systemd');
  t.is(new Set(systemd.flatMap(({ bottom, middle }) => [bottom, middle])).size, 1);
  t.not(systemd[0]!.bottom, running);
});

const HOSTILE = [
  '<img src=x onerror="window.owned=1">',
  '</span><script>window.owned=1</script>',
  '"><svg onload=window.owned=1>',
  'javascript:window.owned=1',
  '__proto__',
  '{{constructor.constructor("window.owned=1")()}}',
  '\u202egnp.exe',
];

test('a name out of a guest is shown as it is, and is nothing but text', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  const processes = HOSTILE.map((comm, i) =>
    sampleProcess({
      pid: 100 + i,
      key: comm,
      comm,
      state: 'held',
      held: { policy: comm, reason: comm, since: isoAt(0) },
    }),
  );
  const actions = HOSTILE.map((comm, i) =>
    sampleAction({
      pid: 100 + i,
      key: comm,
      comm,
      policy: comm,
      reason: comm,
      outcome: 'failed',
      code: comm,
    }),
  );
  const domains = [
    sampleDomain(HOSTILE[0]!, processes, { kernel: HOSTILE[1]!, hypervisor: HOSTILE[2]! }),
    sampleDomain(HOSTILE[1]!, [], { error: { code: HOSTILE[0]!, message: HOSTILE[2]! } }),
  ];
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  web.tick(sampleTick(1, domains, { actions }));
  web.tick(sampleTick(2, domains));
  await showsTick(page, 2);
  const names = (await linesOf(page)).map(({ name }) => name);
  t.deepEqual(names, [HOSTILE[0], ...HOSTILE, HOSTILE[1]]);
  t.is(await page.locator('#held li').count(), HOSTILE.length);
  t.is(await page.locator('#edits li').count(), HOSTILE.length);
  // Selected: its facts are shown beside the list.
  await page.locator('#content [role=row]').nth(1).click();
  await page.waitForFunction(() => document.querySelectorAll('#details dd').length > 0);
  t.is(await page.locator('#details dd').nth(7).textContent(), HOSTILE[0]!);
  t.is(await page.evaluate(() => (window as { owned?: number }).owned), undefined);
  t.is(await page.locator('img, svg, iframe, object').count(), 0);
  t.is(await page.locator('script').count(), 1);
  t.deepEqual(errors, []);
});

test('after the daemon was away the page goes on by itself, with what the new one says', async (t) => {
  t.timeout(300_000);
  const first = await serve(t);
  const port = Number(new URL(first.url).port);
  first.tick(sampleTick(1, [sampleDomain('old', [sampleProcess({ pid: 5 })])]));
  first.tick(sampleTick(7, [sampleDomain('old', [sampleProcess({ pid: 5 })])]));
  await using opened = await openPage(`${first.url}?token=${TOKEN}`);
  const { page } = opened;
  await showsTick(page, 7);
  await first.close();
  await page.waitForFunction(() => document.getElementById('status')?.textContent === 'reconnecting');
  // What was known stays on the screen meanwhile.
  t.deepEqual(
    (await linesOf(page)).map(({ name }) => name),
    ['old', 'p5'],
  );
  const second = await serve(t, port);
  second.tick(sampleTick(1, [sampleDomain('new', [sampleProcess({ pid: 6 })])]));
  second.tick(sampleTick(2, [sampleDomain('new', [sampleProcess({ pid: 6 })])]));
  await showsTick(page, 2);
  t.is(await page.locator('#status').textContent(), 'live');
  t.deepEqual(
    (await linesOf(page)).map(({ name }) => name),
    ['new', 'p6'],
  );
});

/** Some of 200 × 50 run at each tick. */
function crowd(tick: number): Tick {
  const domains = Array.from({ length: 200 }, (_, d) =>
    sampleDomain(
      `vm${d}`,
      Array.from({ length: 50 }, (_, p) => {
        const ranNs = p % 5 === 1 && (tick + d) % 7 < 4 ? 1e8 : 0;
        return sampleProcess({ key: `${d}.${p}`, pid: p + 1, comm: `worker${p}`, ranNs, cpuNs: tick * 1e8 });
      }),
    ),
  );
  return sampleTick(tick, domains);
}

test('200 domains of 50 processes: the document stays small, every row can be reached', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  for (let tick = 1; tick <= 20; tick++) web.tick(crowd(tick));
  await using opened = await openPage(`${web.url}?token=${TOKEN}`);
  const { page, errors } = opened;
  await showsTick(page, 20);
  for (let tick = 21; tick <= 40; tick++) {
    web.tick(crowd(tick));
    await showsTick(page, tick);
  }
  t.is(await page.locator('#viewport').getAttribute('aria-rowcount'), String(200 * 51 + 1));
  const elements = await page.evaluate(() => document.querySelectorAll('*').length);
  t.true(elements < 1000, String(elements));
  for (const name of ['domsched-apply', 'domsched-show']) {
    const durations = await page.evaluate(
      (wanted) => performance.getEntriesByName(wanted).map(({ duration }) => duration),
      name,
    );
    t.true(durations.length > 0);
    durations.sort((a, b) => a - b);
    const at = (part: number) => durations[Math.floor(durations.length * part)]!.toFixed(1);
    t.log(`${name}, 10,000 processes: median ${at(0.5)} ms, 90 % ${at(0.9)} ms, of ${durations.length}`);
  }

  await page.locator('#viewport').focus();
  await page.keyboard.press('End');
  await page.waitForFunction(() => document.querySelector('[aria-rowindex="10201"]:not([hidden])') !== null);
  const last = (await linesOf(page)).at(-1)!;
  t.like(last, { name: 'worker49', pid: '50' });
  await page.fill('#filter', 'vm123');
  await page.waitForFunction(
    () => document.querySelectorAll('#content > [role=row]:not([hidden])').length < 60,
  );
  await page.waitForFunction(
    () => document.getElementById('viewport')?.getAttribute('aria-rowcount') === '52',
  );
  const filtered = await linesOf(page);
  t.is(filtered[0]!.name, 'vm123');
  await page.locator('#viewport').focus();
  await page.keyboard.press('Home');
  await page.keyboard.press('Enter');
  await page.waitForFunction(
    () => document.getElementById('viewport')?.getAttribute('aria-rowcount') === '2',
  );
  t.deepEqual(errors, []);
});

test('the page asks nobody but its daemon for anything', async (t) => {
  t.timeout(300_000);
  const web = await serve(t);
  web.tick(sampleTick(1, [sampleDomain('web', [sampleProcess({ pid: 1 })])]));
  await using opened = await openPage('about:blank');
  const { page } = opened;
  const asked: string[] = [];
  page.on('request', (request) => asked.push(request.url()));
  await page.goto(`${web.url}?token=${TOKEN}`);
  await showsTick(page, 1);
  t.deepEqual(new Set(asked.map((url) => new URL(url).origin)), new Set([new URL(web.url).origin]));
  t.true(asked.some((url) => url.endsWith('/events')));
});
