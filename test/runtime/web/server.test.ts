import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { Metrics } from '../../../runtime/metrics/metrics.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { LineDecoder } from '../../../runtime/trace/decode.ts';
import type { TickLine } from '../../../runtime/trace/line.ts';
import { MOST_CLIENTS } from '../../../runtime/web/event-hub.ts';
import { HealthCheck } from '../../../runtime/web/health.ts';
import { parseListen } from '../../../runtime/web/local.ts';
import { Replay } from '../../../runtime/web/replay.ts';
import { WebServer } from '../../../runtime/web/server.ts';
import { readToken } from '../../../runtime/web/token.ts';
import { until } from '../../live/until.ts';
import { backupStory, sampleDomain, sampleFleet, sampleProcess, sampleTick } from '../sample-ticks.ts';

/** As long as one has to be. */
const TOKEN = 'a-token-of-this-test-alone';
const WITH_TOKEN = { authorization: `Bearer ${TOKEN}` };

async function serve(t: ExecutionContext, health?: HealthCheck): Promise<WebServer> {
  const metrics = new Metrics({ withoutOwn: true });
  const listen = { host: '127.0.0.1', port: 0 };
  const web = await WebServer.open({ listen, token: TOKEN, metrics, ...(health && { health }) });
  t.teardown(() => web.close());
  return web;
}

interface HttpAnswer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

/** fetch would not let a test say another Host. */
function ask(
  web: WebServer,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<HttpAnswer> {
  const { hostname, port } = new URL(web.url);
  return new Promise((resolve, reject) => {
    const asked = request(
      { hostname, port, path, method, headers: { ...WITH_TOKEN, ...headers }, agent: false },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          body += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
      },
    );
    asked.on('error', reject).end();
  });
}

/** Events as they come, until the test ends. */
class Listener {
  readonly events: { id: string; tick: Tick }[] = [];
  #rest = '';
  readonly #decoder = new LineDecoder();
  readonly #abort = new AbortController();

  static async open(t: ExecutionContext, web: WebServer, lastId?: string): Promise<Listener> {
    const listener = new Listener();
    const headers = { ...WITH_TOKEN, ...(lastId !== undefined && { 'Last-Event-ID': lastId }) };
    const response = await fetch(new URL('/events', web.url), { headers, signal: listener.#abort.signal });
    t.is(response.status, 200);
    listener.#read(response.body!).catch(() => {});
    t.teardown(() => listener.close());
    return listener;
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(body: AsyncIterable<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of body) {
      this.#rest += decoder.decode(chunk, { stream: true });
      const parts = this.#rest.split('\n\n');
      this.#rest = parts.pop()!;
      for (const part of parts) {
        const id = /^id: (.*)$/m.exec(part)?.[1];
        const data = /^data: (.*)$/m.exec(part)?.[1];
        if (id === undefined || data === undefined) continue;
        this.events.push({ id, tick: this.#decoder.decode(JSON.parse(data)) });
      }
    }
  }
}

test('the past keeps what is known of the fleet when its first ticks are left out', (t) => {
  const replay = new Replay();
  const one = { host: 'a', state: 'active' as const, heardMs: 1, classes: [] };
  const other = { ...one, host: 'b' };
  // Five minutes are kept: the first tick is left out when the third comes.
  for (const [i, heard] of [[one], [one, other], [one, other]].entries())
    replay.push(sampleTick(i + 1, [], { ms: i * 200_000, fleet: sampleFleet({ heard }) }));
  const decoder = new LineDecoder();
  const seen = [...replay.all()].map(({ text }) =>
    decoder.decode(JSON.parse(text) as TickLine).fleet!.heard.map(({ host }) => host),
  );
  t.deepEqual(seen, [['a'], ['a', 'b'], ['a', 'b']]);
});

test('the state, the health and the metrics, before the first tick and after', async (t) => {
  let now = 0;
  const web = await serve(t, new HealthCheck(() => now));
  t.is((await ask(web, '/api/state')).status, 503);
  t.like(JSON.parse((await ask(web, '/health')).body), { status: 'starting', ageMs: null });
  const [first, second] = backupStory(2);
  web.tick(first!);
  web.tick(second!);
  t.deepEqual(JSON.parse((await ask(web, '/api/state')).body), second);
  const healthy = await ask(web, '/health');
  t.is(healthy.status, 200);
  t.like(JSON.parse(healthy.body), { status: 'healthy', tick: 2, domains: 3, unreadable: 0 });
  const [domain] = second!.domains;
  const contradiction = { code: 'guest-inconsistent', message: 'its run queues' };
  web.tick({ ...second!, domains: [{ ...domain!, error: contradiction }] });
  const inconsistent = await ask(web, '/health');
  t.is(inconsistent.status, 503);
  t.like(JSON.parse(inconsistent.body), { status: 'inconsistent', unreadable: 1 });
  web.tick({ ...second!, domains: [{ ...domain!, error: { ...contradiction, code: 'domain-gone' } }] });
  t.is((await ask(web, '/health')).status, 200);
  web.tick(second!);
  now = 10_000;
  t.is((await ask(web, '/health')).status, 200);
  now = 10_001;
  const stale = await ask(web, '/health');
  t.is(stale.status, 503);
  t.like(JSON.parse(stale.body), { status: 'stale', ageMs: 10_001 });
  const metrics = await ask(web, '/metrics');
  t.is(metrics.status, 200);
  t.regex(String(metrics.headers['content-type']), /^text\/plain; version=/);
});

test('a daemon that looks seldom is not stale for it', (t) => {
  let now = 0;
  const health = new HealthCheck(() => now);
  health.tick(sampleTick(1, [], { elapsedMs: 60_000 }));
  health.tick(sampleTick(2, [], { elapsedMs: 500 }));
  now = 100_000;
  t.is(health.get().status, 'healthy');
  now = 300_000;
  t.is(health.get().status, 'stale');
});

test('who asks under another name, from another site, or for a change, is refused', async (t) => {
  const web = await serve(t);
  const { port } = new URL(web.url);
  const others = ['evil.example', `evil.example:${port}`, '10.0.0.1', 'localhost.evil.example', '[::2]'];
  for (const host of [...others, '127.1.evil.example', '0.0.0.0']) {
    const { status } = await ask(web, '/', { Host: host });
    t.true([400, 403].includes(status), `${host}: ${status}`);
  }
  for (const host of ['localhost', `localhost:${port}`, '127.0.0.1:1', 'LOCALHOST', '[::1]:80']) {
    t.is((await ask(web, '/', { Host: host })).status, 200, host);
  }
  const crossSite = { 'Sec-Fetch-Site': 'cross-site' };
  t.is((await ask(web, '/events', { ...crossSite, 'Sec-Fetch-Mode': 'cors' })).status, 403);
  t.is((await ask(web, '/', { ...crossSite, 'Sec-Fetch-Mode': 'navigate' })).status, 200);
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    for (const path of ['/', '/api/state', '/events']) t.is((await ask(web, path, {}, method)).status, 405);
  }
});

test('nothing but the page, and every answer says what a browser may do with it', async (t) => {
  const web = await serve(t);
  const strange = [
    '/package.json',
    '/page/',
    '/page/../server.js',
    '/page/..%2fserver.js',
    '/trace/encode.js',
  ];
  for (const path of [...strange, '/page/main.ts', '/page/tsconfig.json', '/constructor']) {
    t.is((await ask(web, path)).status, 404, path);
  }
  for (const path of [
    '/',
    '/page/main.js',
    '/page/style.css',
    '/page/icon.svg',
    '/trace/decode.js',
    '/none',
  ]) {
    const { headers } = await ask(web, path);
    const policy = String(headers['content-security-policy']);
    t.regex(policy, /default-src 'none'/);
    t.regex(policy, /script-src 'self'(;|$)/);
    t.regex(policy, /require-trusted-types-for 'script'/);
    t.regex(policy, /frame-ancestors 'none'/);
    t.notRegex(policy, /unsafe/);
    t.is(headers['x-content-type-options'], 'nosniff');
    t.is(headers['cross-origin-resource-policy'], 'same-origin');
    t.is(headers['access-control-allow-origin'], undefined);
  }
});

test('whoever comes late gets the last minutes; whoever was cut off what it missed', async (t) => {
  const web = await serve(t);
  const story = [...backupStory(60)];
  for (const tick of story.slice(0, 40)) web.tick(tick);
  const early = await Listener.open(t, web);
  await until('40 ticks came', () => early.events.length === 40);
  t.deepEqual(
    early.events.map(({ tick }) => tick),
    story.slice(0, 40),
  );
  early.close();
  for (const tick of story.slice(40)) web.tick(tick);
  const again = await Listener.open(t, web, early.events.at(-1)!.id);
  await until('what it missed came', () => again.events.length === 20);
  t.deepEqual(
    again.events.map(({ tick }) => tick.tick),
    story.slice(40).map(({ tick }) => tick),
  );
  // Of another run of the daemon: everything.
  const stranger = await Listener.open(t, web, 'abcdef.59');
  await until('all of it came', () => stranger.events.length === 60);
  t.deepEqual(
    stranger.events.map(({ tick }) => tick),
    story,
  );
});

test('the past is bounded, and what is left of it begins with everything', (t) => {
  const replay = new Replay();
  const story = [...backupStory(1500)];
  for (const tick of story) replay.push(tick);
  const decoder = new LineDecoder();
  const found = [...replay.all()].map(({ text }) => decoder.decode(JSON.parse(text)));
  // Five minutes at 0.5 s, both ends, and the state before them.
  t.is(found.length, 602);
  t.deepEqual(
    found.map(({ tick }) => tick),
    story.slice(-602).map(({ tick }) => tick),
  );
  // The state before them has no CPU time of its own: nobody saw the tick before it.
  t.deepEqual(found.slice(1), story.slice(-601));
  t.is(replay.since(1), undefined);
  t.is(replay.since(1499)?.length, 1);
});

test('a page that does not read holds nobody up, and gets the state when it reads again', async (t) => {
  const web = await serve(t);
  const { hostname, port } = new URL(web.url);
  const slow = connect(Number(port), hostname);
  t.teardown(() => slow.destroy());
  slow.write(`GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`);
  slow.pause();
  const fast = await Listener.open(t, web);
  const many = (tick: number) => {
    const one = (pid: number) => sampleProcess({ pid, ranNs: tick, cpuNs: tick, comm: `${tick}` });
    return sampleTick(tick, [
      sampleDomain(
        'web',
        Array.from({ length: 3000 }, (_, i) => one(i)),
      ),
    ]);
  };
  // As many bytes as no socket takes unread.
  for (let tick = 1; tick <= 100; tick++) {
    web.tick(many(tick));
    await until(`tick ${tick} came`, () => fast.events.at(-1)?.tick.tick === tick);
  }
  let text = '';
  slow.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  slow.resume();
  await until('the slow one has the last state', () => text.includes('data: {"tick":100,'));
  const ids = [...text.matchAll(/^id: \w+\.(\d+)\r?$/gm)].map((match) => Number(match[1]));
  t.true(ids.length < 100, String(ids.length));
  t.deepEqual(
    ids,
    ids.toSorted((a, b) => a - b),
  );
  t.regex(text.slice(text.indexOf('data: {"tick":100,')).slice(0, 300), /"full":true/);
});

test('only so many pages at once', async (t) => {
  const web = await serve(t);
  web.tick(sampleTick(1, []));
  const pages: Listener[] = [];
  for (let i = 0; i < MOST_CLIENTS; i++) pages.push(await Listener.open(t, web));
  t.is((await ask(web, '/events')).status, 503);
  pages[0]!.close();
  await until('its place is free', async () => {
    const response = await fetch(new URL('/events', web.url), { headers: WITH_TOKEN });
    await response.body?.cancel();
    return response.status === 200;
  });
  t.pass();
});

test('listens for this machine alone', async (t) => {
  t.deepEqual(parseListen('127.0.0.1:9464'), { host: '127.0.0.1', port: 9464 });
  t.deepEqual(parseListen('[::1]:0'), { host: '::1', port: 0 });
  t.deepEqual(parseListen('localhost:1'), { host: 'localhost', port: 1 });
  t.deepEqual(parseListen('unix:/run/domsched/page'), { path: '/run/domsched/page' });
  const reachable = [
    'unix:relative',
    'unix:',
    '0.0.0.0:80',
    '10.0.0.1:80',
    '[::]:80',
    'localhost.example:1',
    '127.0.0.1.example:1',
  ];
  for (const bad of [...reachable, '9464', ':9464', 'localhost:99999', '127.0.0.1', '127.0.0.999:1']) {
    t.is(t.throws(() => parseListen(bad), { instanceOf: DomschedError }, bad).code, 'config-invalid');
  }
  const web = await serve(t);
  const listen = { host: '127.0.0.1', port: Number(new URL(web.url).port) };
  const metrics = new Metrics({ withoutOwn: true });
  const error = await t.throwsAsync(WebServer.open({ listen, token: TOKEN, metrics }), {
    instanceOf: DomschedError,
  });
  t.is(error.code, 'config-invalid');
  t.regex(error.message, /EADDRINUSE/);
});

test('an address without a token is not served, and without it a request learns nothing', async (t) => {
  const metrics = new Metrics({ withoutOwn: true });
  const bare = WebServer.open({ listen: { host: '127.0.0.1', port: 0 }, metrics });
  t.is((await t.throwsAsync(bare, { instanceOf: DomschedError })).code, 'config-invalid');
  const web = await serve(t, new HealthCheck(() => 0));
  web.tick(sampleTick(1, [sampleDomain('web', [sampleProcess({ pid: 1, comm: 'secret' })])]));
  const wrong = [
    {},
    { authorization: 'Bearer ' },
    { authorization: `Bearer ${TOKEN}x` },
    { authorization: `Basic ${TOKEN}` },
  ];
  for (const headers of [...wrong, { cookie: `domsched=${TOKEN}` }, { cookie: 'domsched=' }]) {
    for (const path of [
      '/',
      '/api/state',
      '/events',
      '/metrics',
      '/page/main.js',
      '/nothing',
      '/?token=wrong',
    ]) {
      const answer = await ask(web, path, { authorization: '', ...headers });
      t.is(answer.status, 401, `${path} ${JSON.stringify(headers)}`);
      t.false(answer.body.includes('secret'));
    }
  }
  // Whoever watches the daemon may know that it lives, and no more.
  const health = await ask(web, '/health', { authorization: '' });
  t.deepEqual(JSON.parse(health.body), { status: 'healthy' });

  const entered = await ask(web, `/?token=${TOKEN}`, { authorization: '' });
  t.is(entered.status, 303);
  t.is(entered.headers.location, '/');
  const [cookie] = entered.headers['set-cookie'] as string[];
  t.regex(cookie!, /; HttpOnly; SameSite=Strict; Path=\/$/);
  t.false(cookie!.includes(TOKEN));
  const withCookie = { authorization: '', cookie: cookie!.split(';')[0]! };
  t.is((await ask(web, '/api/state', withCookie)).status, 200);
  // A daemon that was started again knows its browsers.
  t.is((await ask(await serve(t), '/', withCookie)).status, 200);
});

test('connections that ask for nothing keep nobody out', async (t) => {
  const web = await serve(t, new HealthCheck(() => 0));
  web.tick(sampleTick(1, []));
  const { hostname, port } = new URL(web.url);
  const page = await Listener.open(t, web);
  let ended = 0;
  for (let i = 0; i < 300; i++) {
    const idle = connect(Number(port), hostname);
    t.teardown(() => idle.destroy());
    idle
      .on('error', () => {})
      .on('close', () => {
        ended += 1;
      });
    await once(idle, 'connect');
    // Half a request, as good as none.
    if (i % 2 === 0) idle.write('GET / HTTP/1.1\r\nHost: localhost\r\n');
    if (i % 50 === 49) t.is((await ask(web, '/health')).status, 200);
  }
  await until('the first ones lost their places', () => ended >= 300 - 128);
  web.tick(sampleTick(2, []));
  await until('the page goes on', () => page.events.at(-1)?.tick.tick === 2);
});

test('a socket is for its owner alone, in the place of a dead one, and gone at the end', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'web-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'new', 'page');
  const open = () => WebServer.open({ listen: { path: file }, metrics: new Metrics({ withoutOwn: true }) });
  const abandoned = await open();
  const web = await open();
  t.is(web.url, `unix:${file}`);
  t.is(statSync(file).mode & 0o777, 0o600);
  t.is(statSync(path.dirname(file)).mode & 0o777, 0o700);
  const status = await new Promise((resolve, reject) => {
    const asked = request({ socketPath: file, path: '/health', agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on('error', reject).end();
  });
  t.is(status, 503, 'no tick yet');
  await web.close();
  t.false(existsSync(file));
  await abandoned.close();

  writeFileSync(file, 'not a socket');
  t.is((await t.throwsAsync(open(), { instanceOf: DomschedError })).code, 'config-invalid');
  t.is(readFileSync(file, 'utf8'), 'not a socket');
});

test('a token that others may read, or that is none, is refused, and the advice makes one', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'token-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, "it's a token");
  const refused = (pattern: RegExp) => {
    const error = t.throws(() => readToken(file), { instanceOf: DomschedError, message: pattern });
    t.is(error.code, 'config-invalid');
    return error.message;
  };
  const advice = /; \((.*)\) makes one$/.exec(refused(/ENOENT/))![1]!;
  execFileSync('sh', ['-c', advice]);
  t.regex(readToken(file), /^\S{22,}$/);
  chmodSync(file, 0o640);
  execFileSync('sh', ['-c', /; (chmod .*), and have it/.exec(refused(/others/))![1]!]);
  t.regex(readToken(file), /^\S{22,}$/);
  for (const bad of ['', 'short', 'two words that are long enough to be one', 'x'.repeat(5000)]) {
    writeFileSync(file, bad);
    refused(/token/);
  }
  rmSync(file);
  symlinkSync('/etc/hostname', file);
  refused(/ELOOP/);
  rmSync(file);
  mkdirSync(file, 0o700);
  refused(/no file/);
});
