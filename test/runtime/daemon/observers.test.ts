import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import pino from 'pino';
import { z } from 'zod';
import { makeObservers } from '../../../runtime/daemon/observers.ts';
import { OBSERVERS } from '../../../runtime/daemon/observers-config.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { openTrace } from '../../../runtime/trace/read.ts';
import { backupStory } from '../sample-ticks.ts';

const schema = z.strictObject(OBSERVERS);
const TOKEN = 'a-token-of-this-test-alone';
const headers = { authorization: `Bearer ${TOKEN}` };
const urls: string[] = [];
const log = pino({ level: 'info' }, { write: (line) => urls.push(JSON.parse(line).url) });

test('nothing is on that was not asked for', async (t) => {
  t.deepEqual(await makeObservers(schema.parse({}), log), []);
});

test.serial(
  'page and trace are told of every tick, and closing them frees their port and file',
  async (t) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'observers-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const file = path.join(folder, 'a.trace');
    const tokenFile = path.join(folder, 'token');
    await writeFile(tokenFile, TOKEN, { mode: 0o600 });
    const config = schema.parse({ http: { listen: '127.0.0.1:0', tokenFile }, trace: { file } });
    const observers = await makeObservers(config, log);
    const url = urls.findLast((found) => found !== undefined)!;
    const story = [...backupStory(3)];
    for (const tick of story) for (const observer of observers) observer.tick(tick);
    t.like(await (await fetch(new URL('/api/state', url), { headers })).json(), { tick: 3 });
    t.regex(await (await fetch(new URL('/metrics', url), { headers })).text(), /^domsched_ticks_total 3$/m);

    // Another one on the same port gets nothing, and leaves no trace behind.
    const taken = schema.parse({
      http: { listen: new URL(url).host, tokenFile },
      trace: { file: `${file}.other` },
    });
    const error = await t.throwsAsync(makeObservers(taken, log), { instanceOf: DomschedError });
    t.is(error.code, 'config-invalid');
    await t.throwsAsync(openTrace(`${file}.other`), { instanceOf: DomschedError });

    for (const observer of observers) await observer.close();
    const found = [];
    for await (const tick of (await openTrace(file)).ticks()) found.push(tick);
    t.deepEqual(found, story);
    const again = await makeObservers(taken, log);
    for (const observer of again) await observer.close();
  },
);

test('a configuration that others could reach, or that is spelt wrong, is refused', (t) => {
  for (const config of [
    { http: { listen: '0.0.0.0:80', tokenFile: '/x' } },
    // Whoever can open an address needs a token for it.
    { http: { listen: '127.0.0.1:80' } },
    { http: { listen: '127.0.0.1:80', tokenFile: 'relative' } },
    { http: { listen: '127.0.0.1:80', tokenFile: '/x', prot: 1 } },
    { trace: { file: 'relative' } },
    { trace: { file: '/x', maxSize: 0 } },
  ]) {
    t.false(schema.safeParse(config).success, JSON.stringify(config));
  }
  t.is(schema.parse({ http: { listen: '[::1]:1', tokenFile: '/x' } }).http?.processes, 50);
  t.is(schema.parse({ http: {} }).http?.listen, undefined);
});
