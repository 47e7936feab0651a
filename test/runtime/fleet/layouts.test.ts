/** A kernel that is read once in a fleet: on the real server, with guests that say of themselves what a real kernel does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { Objm } from '@nats-io/obj';
import { connect, headers } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import { PolicyCache } from '../../../runtime/fleet/policy-cache.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { haveLayoutsFrom } from '../../../runtime/guest/learn/elsewhere.ts';
import { MemoryLayouts, type Remembered } from '../../../runtime/guest/learn/remembered.ts';
import { until } from '../../live/until.ts';
import { LearnableKernel } from '../guest/learnable.ts';
import type { SyntheticGuest } from '../guest/synthetic.ts';
import { NatsServer } from './nats-server.ts';

const cache = mkdtempSync(path.join(tmpdir(), 'domsched-fleet-layouts-'));
process.env.DOMSCHED_CACHE_DIR = cache;
let kernel: LearnableKernel;
test.before(async () => {
  kernel = await LearnableKernel.read();
});
test.after.always(() => rmSync(cache, { recursive: true, force: true }));
test.afterEach.always(() => haveLayoutsFrom(undefined));

/** From now on this process is a host with this name, which knows no kernel yet. */
function become(t: ExecutionContext, name: string, server: NatsServer): Fleet {
  rmSync(cache, { recursive: true, force: true });
  const config = FLEET.parse({ servers: [server.url], name, layouts: true });
  const fleet = new Fleet(config, pino({ level: 'silent' }), undefined, new PolicyCache(config, cache));
  t.teardown(() => fleet.close());
  haveLayoutsFrom(fleet.layouts);
  return fleet;
}

async function attach(guest: SyntheticGuest): Promise<Guest> {
  const attached = await Guest.attach(guest.domain, []);
  attached.detach();
  return attached;
}

/** A host reads the kernel of a guest, and the store has its layout. */
async function given(t: ExecutionContext, server: NatsServer) {
  const a = become(t, 'a', server);
  const first = await attach(await kernel.guest({ name: 'web' }));
  t.is(first.kernel.learned?.guest, 'web');
  await until('it is given', () => a.status().layouts!.given === 1);
  const connection = await connect({ servers: server.url });
  t.teardown(() => connection.close());
  const store = await new Objm(connection).open('domsched-layouts');
  const [object] = await store.list();
  return { connection, store, name: object!.name, first };
}

test.serial(
  'a kernel is read once in the fleet: another host takes its layout, proves it, and keeps it',
  async (t) => {
    await using server = await NatsServer.start();
    const { first } = await given(t, server);
    const b = become(t, 'b', server);
    const db = await kernel.guest({ name: 'db', slide: 0x600_0000n });
    const second = await attach(db);
    t.like(second.kernel.learned, { guest: 'a/web', date: first.kernel.learned!.date });
    t.is(second.kernel.slide, 0x600_0000n);
    t.deepEqual(b.status().layouts, { taken: 1, given: 0, refused: 0 });
    // Without the store it has it all the same from now on.
    await server.kill();
    await until('it is cut off', () => !b.state.connected);
    t.is((await attach(db)).kernel.learned?.guest, 'a/web');
    // And a host that has nothing reads its guest, as ever.
    rmSync(cache, { recursive: true, force: true });
    t.is((await attach(db)).kernel.learned?.guest, 'db');
    t.deepEqual(b.status().layouts, { taken: 1, given: 0, refused: 0 });
  },
);

test.serial('what is forged is not used: the guest is read instead, and nobody keeps the lie', async (t) => {
  await using server = await NatsServer.start();
  const { connection, store, name } = await given(t, server);
  const good = JSON.parse(Buffer.from((await store.getBlob(name))!).toString()) as Remembered;
  t.false('seal' in good, 'the key by which this host recognizes a kernel stays here');
  const put = (value: unknown) =>
    store.putBlob({ name }, Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
  /** Says something else of an object than it is. */
  const describe = async (facts: object) => {
    const info = await store.info(name);
    const subject = `$O.domsched-layouts.M.${Buffer.from(name)
      .toString('base64url')
      .padEnd(Math.ceil(name.length / 3) * 4, '=')}`;
    const all = headers();
    all.set('Nats-Rollup', 'sub');
    const said = {
      name,
      bucket: info!.bucket,
      nuid: info!.nuid,
      size: info!.size,
      chunks: info!.chunks,
      digest: info!.digest,
    };
    await connection.request(subject, JSON.stringify({ ...said, ...facts }), {
      headers: all,
      timeout: 60_000,
    });
  };
  const lying = structuredClone(good);
  for (const member of lying.layout.structs.task_struct!.members)
    if (['tasks', 'comm', 'pid', 'tgid'].includes(member.name ?? '')) member.offset += 16;
  const outside = structuredClone(good);
  outside.layout.structs.task_struct!.members[0]!.offset = 1e8;
  // Each of its own digest: one that was wrong is not looked at again.
  const cases: [string, () => Promise<unknown>][] = [
    ['another digest', () => put(good).then(() => describe({ digest: `SHA-256=${'A'.repeat(43)}=` }))],
    [
      'a link',
      () => put('{0').then(() => describe({ options: { link: { bucket: 'elsewhere', name: 'x' } } })),
    ],
    ['too long', () => put('x'.repeat((8 << 20) + 1))],
    ['longer than it says', () => put('y'.repeat((8 << 20) + 1)).then(() => describe({ size: 5 }))],
    ['no JSON', () => put('{')],
    ['no layout', () => put({ ...good, layout: { ...good.layout, structs: { rq: 7 } } })],
    ['members outside', () => put(outside)],
  ];
  const { banner } = good.layout.kernel;
  const b = become(t, 'b', server);
  for (const [i, [what, forge]] of cases.entries()) {
    await forge();
    t.is(await b.layouts!.take(banner!), undefined, what);
    t.is(b.status().layouts!.refused, i + 1, what);
  }
  // What is right by itself, and not the guest's: the guest disproves it, and a good one is there again.
  await put(lying);
  const { kernel: found } = await attach(await kernel.guest({ name: 'db' }));
  t.is(found.learned?.guest, 'db');
  t.is(b.status().layouts!.refused, 8);
  t.deepEqual(
    new MemoryLayouts().all().map(({ guest }) => guest),
    ['db'],
    'the lie is not kept',
  );
  await until('a good one is there again', () => b.status().layouts!.given === 1);
  t.is(await b.layouts!.take(banner!), undefined, 'after so many lies nothing is taken any more');
  // By others it is. Of the same banner, but of other bytes: not this guest's, and no lie.
  const c = become(t, 'c', server);
  t.is((await c.layouts!.take(banner!))?.entry.guest, 'b/db');
  await put({ ...good, hash: '0'.repeat(64) });
  t.is((await attach(await kernel.guest({ name: 'db' }))).kernel.learned?.guest, 'db');
  t.like(c.status().layouts, { taken: 0, refused: 0 });
});
