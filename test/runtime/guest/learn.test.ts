/**
 * Kernels by what they say of themselves, in a guest made in memory with the read-only data of a real one: and what a
 * guest can do with it that lies.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import type { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { identify } from '../../../runtime/guest/identify/identify.ts';
import { hasSeal, type Seal } from '../../../runtime/guest/learn/evidence.ts';
import { learn } from '../../../runtime/guest/learn/learner.ts';
import { MemoryLayouts } from '../../../runtime/guest/learn/remembered.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { type GuestLies, LearnableKernel } from './learnable.ts';
import { CFS_KERNEL, knownKernel } from './synthetic.ts';

const cache = mkdtempSync(path.join(tmpdir(), 'domsched-learn-'));
process.env.DOMSCHED_CACHE_DIR = cache;
test.beforeEach(() => rmSync(cache, { recursive: true, force: true }));
test.after.always(() => rmSync(cache, { recursive: true, force: true }));

let real: LearnableKernel;
let places: LearnableKernel['places'];
test.before(async () => {
  real = await LearnableKernel.read();
  places = real.places;
});

const guestWith: LearnableKernel['guest'] = (...args) => real.guest(...args);

test.serial(
  'symbols and types are those of the debug package, and are kept for whoever has the same',
  async (t) => {
    const known = await knownKernel(CFS_KERNEL).load();
    const web = await guestWith({ name: 'web' });
    const first = await identify(web.domain, []);
    t.deepEqual([first.learned?.guest, first.slide, first.buildId], ['web', web.slide, known.kernel.buildId]);
    for (const name of known.symbolNames as SymbolName[])
      t.is(first.layout.symbol(name), known.symbol(name), name);
    for (const [struct, member] of [
      ['task_struct', 'se.vruntime'],
      ['rq', 'curr'],
    ] as const)
      t.is(first.layout.field(struct, member).offset, known.field(struct, member).offset);
    // Another guest, moved elsewhere: by what was kept.
    const db = await guestWith({ name: 'db', slide: 0x600_0000n });
    const second = await identify(db.domain, []);
    t.deepEqual([second.learned, second.slide], [first.learned, 0x600_0000n]);
    // Read and converted once, unless the file is another one by then.
    const mail = await guestWith({ name: 'mail' });
    t.is((await identify(mail.domain, [])).layout, second.layout);
    const { directory } = new MemoryLayouts();
    const [name] = readdirSync(directory);
    const kept = path.join(directory, name!);
    writeFileSync(kept, readFileSync(kept, 'utf8').replace('"guest":"web"', '"guest":"another"'));
    const third = await identify(mail.domain, []);
    t.is(third.learned?.guest, 'another');
    t.not(third.layout, second.layout);
    writeFileSync(kept, readFileSync(kept, 'utf8').replace('"guest":"another"', '"guest":"web"'));
    // A layout from a file goes first; that of another build with the same banner does not.
    t.is((await identify(db.domain, [knownKernel(CFS_KERNEL)])).learned, undefined);
    const right = knownKernel(CFS_KERNEL);
    const { layout } = (await import(path.join(right.store, right.folder, 'index.ts'))) as {
      layout: AnyLayout;
    };
    const buildId = '00'.repeat(20);
    const other = new LayoutView({ ...layout, $kernel: { ...layout.$kernel, buildId } } as AnyLayout);
    const impostor = { ...right, buildId, load: async () => other };
    t.deepEqual((await identify(db.domain, [impostor])).learned, first.learned);
  },
);

test.serial(
  'a guest with the name and build-id of another gets nothing of it, nor gives it anything',
  async (t) => {
    // Somewhere among the types: a name that is used is spelt otherwise.
    const lie = (bytes: Buffer) => bytes.write('vruntimX', bytes.indexOf('\0vruntime\0') + 1, 'latin1');
    const forged = await guestWith({ name: 'forged' }, { btf: lie });
    const liar = await identify(forged.domain, []);
    t.is(liar.learned?.guest, 'forged');
    t.false(liar.layout.has('sched_entity', 'vruntime'));
    const web = await guestWith({ name: 'web' });
    const honest = await identify(web.domain, []);
    t.deepEqual([honest.learned?.guest, honest.buildId], ['web', liar.buildId]);
    t.true(honest.layout.has('sched_entity', 'vruntime'));
    // Each has its own from now on.
    t.is((await identify(forged.domain, [])).learned?.guest, 'forged');
    t.is((await identify(web.domain, [])).learned?.guest, 'web');
    t.is(new MemoryLayouts().all().length, 2);
  },
);

test.serial('a kept layout with another seal, a damaged one or none is not used', async (t) => {
  const web = await guestWith({ name: 'web' });
  const { space, slide } = await identify(web.domain, []);
  const { directory } = new MemoryLayouts();
  const [name] = readdirSync(directory);
  const kept = path.join(directory, name!);
  const good = JSON.parse(readFileSync(kept, 'utf8'));
  const { key, tag } = good.seal as Seal;
  t.regex(`${key} ${tag}`, /^[0-9a-f]{64} [0-9a-f]{32}$/);
  t.true(await hasSeal(space, slide, good.evidence, { key, tag }));
  const flip = (hex: string) => `${hex.slice(0, -1)}${(Number.parseInt(hex.at(-1)!, 16) ^ 1).toString(16)}`;
  const others = [
    { key: flip(key), tag },
    { key, tag: flip(tag) },
    { key, tag: tag.slice(0, 8) },
    { key: '', tag: '' },
  ];
  for (const seal of others) t.false(await hasSeal(space, slide, good.evidence, seal), JSON.stringify(seal));
  for (const seal of [{ key: 7, tag }, {}, null, undefined]) {
    writeFileSync(kept, JSON.stringify({ ...good, seal }));
    t.deepEqual(new MemoryLayouts().all(), [], JSON.stringify(seal));
  }
  // By this name nobody has read it: whoever is shown it has taken it from the file.
  writeFileSync(kept, JSON.stringify({ ...good, guest: 'kept' }));
  t.is((await identify(web.domain, [])).learned?.guest, 'kept');
  writeFileSync(kept, JSON.stringify({ ...good, guest: 'kept', seal: { key, tag: flip(tag) } }));
  t.is((await identify(web.domain, [])).learned?.guest, 'web');
});

test.serial('a folder that others may write to is not used, and nothing depends on it', async (t) => {
  const web = await guestWith({ name: 'web' });
  await identify(web.domain, []);
  const { chmodSync } = await import('node:fs');
  chmodSync(new MemoryLayouts().directory, 0o777);
  t.deepEqual(new MemoryLayouts().all(), []);
  t.is((await identify(web.domain, [])).learned?.guest, 'web');
  t.deepEqual(new MemoryLayouts().all(), []);
});

test.serial('a kernel without one of the tables: which is missing, and what to do', async (t) => {
  const cases: [GuestLies, RegExp][] = [
    [{ btf: (bytes) => bytes.fill(0, 0, 64) }, /the types \(BTF\) in the memory of web are damaged/],
    [
      { rodata: (bytes) => bytes.fill(0, places.tables[1]!.start, places.tables[1]!.end) },
      /no symbols.*CONFIG_KALLSYMS_ALL/,
    ],
  ];
  const { buildId } = knownKernel(CFS_KERNEL);
  t.teardown(() => delete process.env.DEBUGINFOD_URLS);
  for (const [lies, expected] of cases) {
    const { domain } = await guestWith({ name: 'web' }, lies);
    process.env.DEBUGINFOD_URLS = 'http://127.0.0.1:1';
    const served = await t.throwsAsync<DomschedError>(identify(domain, []));
    // No symbol says where it is when these are missing.
    t.true(served!.message.includes(`or with domsched extract --build-id ${buildId}`), served!.message);
    delete process.env.DEBUGINFOD_URLS;
    const error = await t.throwsAsync<DomschedError>(identify(domain, []));
    t.false(error!.message.includes('--build-id'));
    t.is(error?.code, 'layout-unknown');
    t.regex(error!.message, expected);
    t.regex(error!.message, /make it with domsched extract \/usr\/lib\/debug\/boot\/vmlinux-6\.1/);
  }
});

test.serial(
  'forged tables: refused, or the harm is its own; no frame is touched but of its own RAM',
  async (t) => {
    let state = 3;
    const random = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % below;
    };
    const codes = new Map<string, number>();
    for (let round = 0; round < 8; round++) {
      const guest = await guestWith(
        { name: 'liar' },
        {
          // Members that lie anywhere, symbols that lie anywhere.
          btf: (bytes) => {
            for (let lie = 0; lie < [5, 50, 500, 4000][round % 4]!; lie++)
              bytes.writeUInt32LE(random(1 << 30), 24 + 4 * random(900_000));
          },
          rodata: (bytes) => {
            if (round < 4) return;
            const { start, end } = places.tables[0]!;
            for (let lie = 0; lie < 2000; lie++)
              bytes.writeInt32LE(random(1 << 30), start + 4 * random((end - start) / 4));
          },
        },
      );
      guest.domain.recorder.recording = true;
      const outcome = await Guest.attach(guest.domain, []).then(
        () => 'attached',
        (error: DomschedError) => error.code ?? String(error),
      );
      codes.set(outcome, (codes.get(outcome) ?? 0) + 1);
      const [ram] = guest.domain.frames.regions();
      for (const call of guest.domain.recorder.calls) {
        t.not(call.kind, 'write');
        if (call.kind === 'read') t.true(call.frame >= ram!.first && call.frame < ram!.first + ram!.count);
      }
    }
    const refusals = [
      'layout-unknown',
      'layout-disproved',
      'layout-absent-member',
      'guest-inconsistent',
      'translation-fault',
    ];
    t.deepEqual(
      [...codes.keys()].filter((code) => !refusals.includes(code)),
      [],
    );
    t.log(Object.fromEntries(codes));
  },
);

test.serial(
  'a kernel that takes more CPU time than it may is refused, and so is one by the clock',
  async (t) => {
    const copy = async () => real.memory();
    const allMs = 600_000;
    const { layout } = await learn(copy, () => null, { cpuMs: allMs, allMs });
    t.is(layout.kernel.release, knownKernel(CFS_KERNEL).release);
    const late = { code: 'layout-unknown', message: /memory of web take more time than those of any kernel/ };
    await t.throwsAsync(
      learn(copy, () => null, { cpuMs: 1, allMs }),
      late,
    );
    await t.throwsAsync(
      learn(copy, () => null, { cpuMs: allMs, allMs: 1 }),
      late,
    );
  },
);
