/**
 * A guest that lies about everything while it is read and edited, by a kernel of its own (kernels/o1/evil), beside a good
 * guest. DOMSCHED_HOSTILE_ROUNDS=8000 is a soak.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setImmediate as turn } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { execa } from 'execa';
import { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { FRAME_SIZE } from '../../runtime/hypervisor/frame.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { type KnownKernel, knownKernels } from '../../runtime/layout/registry.ts';
import { guestVirtual } from '../../runtime/memory/address.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, goesOn } from './cycles.ts';
import { Dice } from './dice.ts';
import { ForgedTables } from './forged-tables.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { bootO1, buildO1, kernelFile, readSystemMap } from './o1.ts';
import { RecordedWrites, WholeMemory } from './recorded-writes.ts';

const test = anyTest as TestFn<{ good: LiveGuest }>;
/** Looks, holds and releases of the hostile guest. */
const ROUNDS = Number(process.env.DOMSCHED_HOSTILE_ROUNDS ?? 40);
/** How long is tried for what a hostile guest does not let happen. */
const LIMIT_MS = 10;
/** A kernel is looked for anew, and the good guest is held and released, once in so many looks. */
const ATTACH_EVERY = 16;
const GOOD_EVERY = 50;
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
const programs = [
  { kind: 'burner', name: 'burner' },
  { kind: 'sleeper', name: 'sleeper' },
] as const;

test.before(async (t) => {
  t.context.good = await bootDebian({ name: 'good', memory: 160, programs });
});
test.after.always((t) => t.context.good?.[Symbol.asyncDispose]());

/** What came of all that was tried. */
type Outcomes = Record<string, number>;

/** One that is tried; nothing but a result or an error of ours may come of it. */
async function trying(outcomes: Outcomes, what: string, step: () => unknown): Promise<void> {
  let outcome = 'done';
  try {
    const result = await step();
    if (typeof result === 'string') outcome = result;
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    if (/[^\x20-\x7e]/.test(error.message))
      throw new Error(`control characters: ${JSON.stringify(error.message)}`);
    outcome = error.code;
  }
  const key = `${what} ${outcome}`;
  outcomes[key] = (outcomes[key] ?? 0) + 1;
}

/** Reads and edits a hostile guest for a while, and a good one beside it. */
async function meet(
  t: ExecutionContext<{ good: LiveGuest }>,
  domain: QemuDomain,
  kernels: readonly KnownKernel[],
  guest: Guest,
  targets: readonly Process[],
): Promise<void> {
  const { good } = t.context;
  await using goodDomain = await QemuDomain.attach(good.sockets, good.connection);
  using memory = new WholeMemory(path.join(good.directory, 'memory'));
  let stray = 0;
  const careful = new RecordedWrites(goodDomain, (write, writes) => {
    if (!memory.changesOnly(write, writes as never)) stray += 1;
  });
  const goodGuest = await Guest.attach(goodDomain, await knownKernels());
  const goodSurgeon = new Surgeon(careful.domain, goodGuest, holderFor(goodGuest));
  const goodPrograms = programs.map(({ name }) => findProcess(goodGuest.snapshot().processes, name));
  const before = await good.progress(...programs.map(({ name }) => name));

  const recorded = new RecordedWrites(domain);
  const surgeon = new Surgeon(recorded.domain, guest, holderFor(guest));
  const options = { limitMs: LIMIT_MS, journal: recorded.journal };
  const outcomes: Outcomes = {};
  let goodHolds = 0;
  const spent = { hostile: 0, good: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const begin = performance.now();
    const target = targets[round % targets.length]!;
    await trying(outcomes, 'look', () => void guest.snapshot({ threads: round % 2 === 0 }));
    await trying(outcomes, 'processes', () => void guest.processesAlone());
    await trying(outcomes, 'hold', async () => (await surgeon.hold(target, options)).outcome);
    if (round % 4 === 3)
      await trying(outcomes, 'renice', async () => (await surgeon.renice(target, 5, options)).outcome);
    await trying(outcomes, 'release', async () => (await surgeon.release(target, options)).outcome);
    if (round % ATTACH_EVERY === 0) {
      await trying(outcomes, 'attach', async () => (await Guest.attach(domain, kernels)).detach());
      await trying(outcomes, 'search', async () => void (await surgeon.search()));
    }
    t.is(domain.pause.depth, 0);
    await turn();
    const middle = performance.now();
    spent.hostile += middle - begin;
    if (round % GOOD_EVERY !== 0) continue;
    // The good guest knows nothing of all this.
    const goodOptions = { limitMs: 120_000, journal: careful.journal };
    for (const program of goodPrograms) {
      t.is((await goodSurgeon.hold(program, goodOptions)).outcome, 'held');
      t.is((await goodSurgeon.release(program, goodOptions)).outcome, 'released');
      goodHolds += 1;
    }
    spent.good += performance.now() - middle;
  }
  t.log(
    `${JSON.stringify(outcomes)}; ${recorded.edits} edits of ${recorded.words} words, ${recorded.undone} taken back`,
  );
  t.log(
    `beside it ${goodHolds} holds of a good guest, ${careful.edits} edits with all of its memory compared`,
  );
  t.log(
    `${Math.round(spent.hostile)} ms with the hostile one, ${Math.round(spent.good)} ms with the good one`,
  );
  t.deepEqual([...recorded.unplanned, ...careful.unplanned], []);
  t.is(stray, 0, 'no byte of the good guest changed but those of the plan');
  t.true(recorded.edits > 0 && careful.edits >= goodHolds);
  const refusals = Object.keys(outcomes).filter((key) =>
    /guest-inconsistent|kernel-unidentified|lock-held|refused|edit-|timeout/.test(key),
  );
  t.true(refusals.length > 0, 'it was found out');
  const looks = Object.keys(outcomes).filter((key) => key.startsWith('look '));
  t.true(outcomes['look done']! > 0 && looks.length > 1, 'some looks found it in order, others did not');
  goodGuest.detach();
  await goesOn(t, good, before);
  await goesOn(t, good, await good.progress(...programs.map(({ name }) => name)));
  good.checkConsole();
}

test.serial('a kernel that lies from within', async (t) => {
  t.timeout(600_000 + 1_000 * ROUNDS);
  await buildO1();
  const store = await mkdtemp(path.join(tmpdir(), 'hostile-layout-'));
  try {
    await execa(process.execPath, ['domsched.ts', 'extract', kernelFile('evil'), '--out', store], {
      cwd: path.resolve(import.meta.dirname, '../..'),
    });
    const kernels = await knownKernels([path.join(store, 'registry.ts')]);
    const socket = path.join(store, 'qmp.sock');
    await using live = await bootO1({
      variant: 'evil',
      cpus: 1,
      memoryMiB: 32,
      name: 'evil',
      commandLine: 'report=100 run=pi1,pi2,pi3:5,sleeper,pair',
      extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
    });
    await live.waitFor(/^pi1 /);
    await using domain = await QemuDomain.attach({ qmp: socket }, `qemu:unix:${socket}`);
    const guest = await Guest.attach(domain, kernels);
    const { processes } = guest.snapshot();
    await live.waitFor(/evil begins/);
    const targets = ['pi1', 'pi2', 'pi3', 'sleeper'].map((name) => findProcess(processes, name));
    const from = await evilCounts(live.memoryFile);
    await meet(t, domain, kernels, guest, targets);
    guest.detach();
    const to = await evilCounts(live.memoryFile);
    t.log(`it lied ${to.lies - from.lies} times, and put all right ${to.rounds - from.rounds} times`);
    t.true(to.lies - from.lies > 1_000n && to.rounds > from.rounds);
    // It harmed nobody but itself, and not even itself beyond its own lies.
    t.deepEqual(
      live.lines.filter((line) => /BUG|exception/.test(line)),
      [],
    );
  } finally {
    await rm(store, { recursive: true, force: true });
  }
});

/** Rounds of forging: each has its layout read anew. */
const FORGERIES = Math.max(8, Math.floor(ROUNDS / 10));

test.serial(
  'a kernel whose BTF and kallsyms are forged: refused, or what is written is its own',
  async (t) => {
    t.timeout(600_000 + 20_000 * FORGERIES);
    const seed = Number(process.env.DOMSCHED_HOSTILE_SEED ?? Math.floor(Math.random() * 2 ** 31));
    const dice = new Dice(seed);
    t.log(`DOMSCHED_HOSTILE_SEED=${seed}`);
    const cache = await mkdtemp(path.join(tmpdir(), 'hostile-cache-'));
    t.teardown(() => rm(cache, { recursive: true, force: true }));
    process.env.DOMSCHED_CACHE_DIR = cache;
    const { good: liar } = t.context;
    await using domain = await QemuDomain.attach(liar.sockets, liar.connection);
    // What is written stays where it was written, and nothing else changes: nobody runs.
    await (await liar.monitor()).execute('stop');
    await using file = await open(path.join(liar.directory, 'memory'), 'r+');
    using memory = new WholeMemory(path.join(liar.directory, 'memory'));
    const whole = memory.read();
    const { kernel, space, layout } = await Guest.attach(domain, await knownKernels());
    const tables = await ForgedTables.of(domain, kernel.slide);
    const placesOf = (address: bigint, length: number) =>
      space
        .locate(guestVirtual(address), length)
        .map((part) => ({ ...part, at: part.frame * FRAME_SIZE + part.offset }));
    const wholeAt = (address: bigint, length: number) =>
      Buffer.concat(placesOf(address, length).map((part) => whole.subarray(part.at, part.at + part.length)));
    const outcomes: Outcomes = {};
    let edits = 0;
    for (let round = 0; round < FORGERIES; round++) {
      // Every other lie is about what may well not matter, and so gets through.
      const lies = Array.from({ length: 1 + dice.below(2) }, () =>
        round % 2 === 0
          ? tables.member(dice, false)
          : dice.next() < 0.7
            ? tables.member(dice, true)
            : tables.symbol(dice, layout.symbolNames, wholeAt),
      ).filter((lie) => lie !== null);
      for (const { address, bytes } of lies) {
        let done = 0;
        for (const { at, length } of placesOf(address, bytes.length)) {
          await file.write(bytes, done, length, at);
          done += length;
        }
      }
      const before = memory.read();
      const allowed = Buffer.from(before);
      const writes: string[] = [];
      const recorded = new RecordedWrites(domain, (write, parts) => {
        for (const { frame, offset, bytes } of parts) {
          if (frame < 0 || (frame + 1) * FRAME_SIZE > whole.length) writes.push(`frame ${frame}`);
          allowed.set(bytes, frame * FRAME_SIZE + offset);
        }
        write();
      });
      await rm(path.join(cache, 'layouts'), { recursive: true, force: true });
      let attached: Guest | undefined;
      await trying(outcomes, 'attach', async () => {
        attached = await Guest.attach(domain, []);
      });
      if (attached !== undefined) {
        await editsAs(attached, recorded, outcomes);
        attached.detach();
      }
      edits += recorded.edits;
      const about = `round ${round}: ${lies.map(({ what }) => what).join(', ')}`;
      t.deepEqual(writes, [], about);
      t.deepEqual(recorded.unplanned, [], about);
      t.true(allowed.equals(memory.read()), `${about}: only what was planned is changed`);
      t.is(domain.pause.depth, 0);
      await file.write(whole, 0, whole.length, 0);
    }
    t.log(`${JSON.stringify(outcomes)}; ${edits} edits by forged layouts`);
    t.true(edits > 0, 'a forged layout got as far as an edit');
    // Nobody is worse off than before.
    const before = await (await liar.monitor())
      .execute('cont')
      .then(() => liar.progress(...programs.map(({ name }) => name)));
    await goesOn(t, liar, before);
    liar.checkConsole();
  },
);

/** Tries everything on the programs of a guest whose layout may be a lie. */
async function editsAs(guest: Guest, recorded: RecordedWrites, outcomes: Outcomes): Promise<void> {
  const options = { limitMs: LIMIT_MS, journal: recorded.journal };
  const surgeons: Surgeon[] = [];
  await trying(outcomes, 'ways', () => {
    surgeons.push(new Surgeon(recorded.domain, guest, holderFor(guest)));
  });
  let targets: Process[] = [];
  await trying(outcomes, 'look', async () => {
    const processes = await processesOf(guest, { limitMs: LIMIT_MS });
    targets = processes.filter(({ comm }) => programs.some(({ name }) => name === comm));
  });
  for (const surgeon of surgeons) {
    for (const target of targets) {
      await trying(outcomes, 'hold', async () => (await surgeon.hold(target, options)).outcome);
      await trying(outcomes, 'renice', async () => (await surgeon.renice(target, 5, options)).outcome);
      await trying(outcomes, 'release', async () => (await surgeon.release(target, options)).outcome);
    }
  }
}

/** What the evil kernel has counted. */
async function evilCounts(file: string): Promise<{ lies: bigint; rounds: bigint }> {
  const symbols = await readSystemMap('evil');
  await using memory = await open(file);
  const read = async (name: string) => {
    const { buffer } = await memory.read(Buffer.alloc(8), 0, 8, Number(symbols.get(name)! - KERNEL_MAP));
    return buffer.readBigUInt64LE();
  };
  return { lies: await read('evil_lies'), rounds: await read('evil_rounds') };
}
