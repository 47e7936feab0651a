import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { connect } from '../../../runtime/hypervisor/connect.ts';
import {
  absoluteConnect,
  formatConnect,
  parseBytes,
  parseConnect,
  placeOf,
} from '../../../runtime/hypervisor/connect-value.ts';
import { scratchFolder } from '../../extractor/fixture.ts';
import { framesOf } from './dump-files.ts';
import { GREETING, obedient, ScriptedServer } from './qmp-server.ts';

/** File names that people have. */
const NAMES = [
  'plain',
  'with space',
  'a,b',
  ',',
  'a,,b,low=4096',
  'colon:x',
  'größe',
  "it's",
  'say "so"',
  'a\\b',
  'ends,',
];

test('what is put together is taken apart again, commas and all', (t) => {
  const text = fc.string({ minLength: 1 }).filter((part) => !part.includes('\0'));
  fc.assert(
    fc.property(text, fc.option(text, { nil: undefined }), (address, low) => {
      const value = formatConnect('dump', address, { low });
      const parsed = parseConnect(value);
      t.is(parsed?.scheme, 'dump');
      t.is(parsed?.address, address);
      t.is(parsed?.options.get('low'), low);
      t.is(placeOf(value), formatConnect('dump', address));
    }),
  );
});

test('a dump of any name: found by its path with commas doubled, and by the connection that it says it has', async (t) => {
  const folder = path.join(scratchFolder(t), 'a, folder');
  mkdirSync(folder);
  for (const name of NAMES) {
    const file = path.join(folder, name);
    writeFileSync(file, framesOf(4));
    await using host = await connect(`dump:${file.replaceAll(',', ',,')},low=8K`);
    const [listing] = await host.list();
    t.is(listing!.identity.name, name);
    await using again = await connect(listing!.identity.connection);
    t.is(again.connection, listing!.identity.connection);
    await using domain = await again.open(file);
    t.deepEqual(
      domain.frames.regions().map(({ first, count }) => [first, count]),
      [
        ...[
          [0, 2],
          [2 ** 20, 2],
        ],
      ],
    );
  }
});

test('a QMP socket of any name, likewise', async (t) => {
  for (const name of ['with space.sock', 'a,b.sock', 'colon:x.sock', 'größe.sock']) {
    await using server = await ScriptedServer.start((socket) => socket.write(GREETING), obedient, name);
    await using host = await connect(`qemu:unix:${server.path.replaceAll(',', ',,')}`);
    const [listing] = await host.list();
    t.is(listing!.identity.id, server.path);
    await using again = await connect(listing!.identity.connection);
    t.deepEqual(again.ids(), [server.path]);
  }
});

test('relative paths are whole ones at once; ~ and options of another scheme are refused', async (t) => {
  t.is(absoluteConnect('dump:x,,y,low=2G'), `dump:${process.cwd().replaceAll(',', ',,')}/x,,y,low=2G`);
  t.is(
    absoluteConnect('qemu:unix:q.sock,qtest=unix:t.sock'),
    `qemu:unix:${process.cwd()}/q.sock,qtest=unix:${process.cwd()}/t.sock`,
  );
  for (const same of ['xen:', 'qemu:', 'dump:', 'nonsense', 'dump:/a,low=1', 'qemu:tcp:1', 'dump:~/x'])
    t.is(absoluteConnect(same), same);
  await using host = await connect('dump:some.dump');
  t.deepEqual(host.ids(), [path.resolve('some.dump')]);
  for (const [value, named] of [
    ['dump:~/x', /replaces ~ at the beginning of a word/],
    ['qemu:unix:~/x', /replaces ~ at the beginning of a word/],
    ['dump:/a,b', /A comma in a path is written twice/],
    ['dump:/a,low=x', /none of/],
    ['dump:/a,low=0', /none of/],
    ['qemu:unix:/a,low=1', /none of/],
    ['qemu:unix:', /none of/],
    ['xen:0', /none of/],
  ] as const) {
    t.regex((await t.throwsAsync(connect(value), { code: 'usage' }))!.message, named, value);
  }
});

test('numbers of bytes', (t) => {
  t.deepEqual(['4096', '0x1000', '4K', '3G', '2g', '1M'].map(parseBytes), [
    4096,
    4096,
    4096,
    3 * 2 ** 30,
    2 * 2 ** 30,
    2 ** 20,
  ]);
  for (const none of ['', 'K', '1.5G', '-1', '1T', '1 G', '3GB']) t.is(parseBytes(none), Number.NaN, none);
});
