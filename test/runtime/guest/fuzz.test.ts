import process from 'node:process';
import test from 'ava';
import { comparison, flat, tree } from '../../../runtime/command/ps-order.ts';
import { table } from '../../../runtime/command/ps-table.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';
import { words } from '../../fuzz/mutants.ts';
import { knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from './synthetic.ts';

/** Corrupted images per kernel; `make soak` asks for more. */
const IMAGES = Number(process.env.DOMSCHED_FUZZ_IMAGES ?? 400);
const SEED = Number(process.env.DOMSCHED_FUZZ_SEED ?? 1);
/** One in so many images is identified and proved from nothing; the others meet a guest that is already known. */
const ATTACH_EVERY = 10;
/** Calls to the hypervisor that one image may cost: far above what the guest's size explains, far below a hang. */
const MAX_CALLS = 20_000;
const MAX_BUFFERS = 512 * 2 ** 20;

for (const kernel of SYNTHETIC_KERNELS) {
  test(`${kernel}: ${IMAGES} corrupted images bring nothing but our own errors`, async (t) => {
    const known = [knownKernel(kernel)];
    const synthetic = await SyntheticGuest.make({ kernel });
    const { domain } = synthetic;
    let calls = 0;
    const read = domain.frames.read.bind(domain.frames);
    domain.frames.read = (batch) => {
      calls += 1;
      if (calls > MAX_CALLS) throw new Error(`more than ${MAX_CALLS} reads: it does not end`);
      return read(batch);
    };
    const random = words(SEED);
    const spoiler = new Spoiler(synthetic, random);
    const guest = await Guest.attach(domain, known);
    const outcomes = new Map<string, number>();
    for (let image = 0; image < IMAGES; image++) {
      calls = 0;
      const undo = spoiler.spoil(1 + (random() % 4));
      let outcome = 'read';
      try {
        const attached = image % ATTACH_EVERY === 0 ? await Guest.attach(domain, known) : guest;
        const { processes, runQueues } = attached.snapshot({ threads: random() % 2 === 0 });
        const rows = processes.map((found) => ({ domain: 'a\x1b[2Jb', ...found }));
        const text = table(tree(rows, comparison('pid'))) + table(flat(rows, comparison('-time')));
        t.false(/[^\n\x20-\x7e]/.test(text), 'control characters');
        t.is(tree(rows, comparison('comm')).length, rows.length);
        t.true(runQueues.every(({ tasks }) => tasks.length <= 1000));
        if (attached !== guest) attached.detach();
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        if (/[^\x20-\x7e]/.test(error.message))
          t.fail(`control characters: ${JSON.stringify(error.message)}`);
        outcome = error.code;
      } finally {
        undo();
      }
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    t.log(Object.fromEntries(outcomes));
    // What was spoiled is whole again, and the guest is read as before.
    t.is(guest.snapshot().processes.length, 10);
    t.true(outcomes.get('read')! > 0 && outcomes.get('guest-inconsistent')! > 0);
    t.true(process.memoryUsage().arrayBuffers < MAX_BUFFERS);
    t.is(domain.recorder.count('write'), 0);
    t.is(domain.pause.depth, 0);
  });
}

/** Damages what a reader of the guest looks at. */
class Spoiler {
  readonly #guest: SyntheticGuest;
  readonly #random: () => number;
  /** Address and size of the objects. */
  readonly #targets: readonly (readonly [bigint, number])[];
  readonly #tables: readonly number[];

  constructor(guest: SyntheticGuest, random: () => number) {
    this.#guest = guest;
    this.#random = random;
    const { layout } = guest;
    const size = (struct: string) => layout.requireStruct(struct).size;
    const tasks = [guest.initTask, ...guest.tasks.values()];
    const symbols = [
      'linux_banner',
      '__per_cpu_offset',
      '_cpu_pda',
      'nr_cpu_ids',
      '__cpu_online_mask',
      'phys_base',
    ] as const;
    this.#targets = [
      ...tasks.map((task) => [task, size('task_struct')] as const),
      ...guest.queues.flatMap((rq) => Array.from({ length: 4 }, () => [rq, size('rq')] as const)),
      ...symbols
        .filter((name) => layout.symbol(name) !== undefined)
        .map((name) => [guest.symbol(name), 64] as const),
      ...[...guest.tasks.values()].map((task) => [this.#signal(task), size('signal_struct')] as const),
    ];
    this.#tables = Array.from({ length: 12 }, (_, i) => guest.tables.root + i * FRAME_SIZE);
  }

  /** Makes `count` changes. @returns a function that takes them back */
  spoil(count: number): () => void {
    const undo: (() => void)[] = [];
    for (let i = 0; i < count; i++) {
      const [physical, bytes] = this.#change();
      const before = this.#guest.image.load(physical, bytes.length);
      this.#guest.image.store(physical, bytes);
      undo.unshift(() => this.#guest.image.store(physical, before));
    }
    return () => {
      for (const step of undo) step();
    };
  }

  #change(): readonly [number, Uint8Array] {
    if (this.#random() % 12 === 0) return this.#tableEntry();
    if (this.#random() % 12 === 0) return this.#name();
    const [address, size] = this.#pick(this.#targets);
    const physical = this.#guest.physical(address);
    if (this.#random() % 4 === 0) {
      const length = 1 + (this.#random() % 64);
      const at = this.#random() % Math.max(1, size - length);
      return [physical + at, Uint8Array.from({ length }, () => this.#random() & 0xff)];
    }
    return [physical + 8 * (this.#random() % (size >> 3)), word(this.#pointer(address))];
  }

  /** A pointer to somewhere: to itself, into another object, or to where no memory is. */
  #pointer(own: bigint): bigint {
    const [other, size] = this.#pick(this.#targets);
    switch (this.#random() % 9) {
      case 0:
        return 0n;
      case 1:
        return own;
      case 2:
        return other;
      case 3:
        return other + BigInt(8 * (this.#random() % (size >> 3)));
      case 4:
        return own + BigInt(8 * (this.#random() % 1000));
      case 5:
        return 0x7fff_0000_0000n + BigInt(this.#random());
      case 6:
        return 0x8000_0000_0000_0000n + BigInt(this.#random());
      case 7:
        return 0xffff_8880_ffff_f000n + BigInt(this.#random() % 8192);
      default:
        return 0xffff_ffff_ffff_ffffn - BigInt(this.#random() % 5000);
    }
  }

  #tableEntry(): readonly [number, Uint8Array] {
    const entries = [
      BigInt(this.#pick(this.#tables)) | 7n,
      0n,
      0xffff_ffff_ffff_ffffn,
      (BigInt(this.#random() % 0x10_0000) << 12n) | 0x87n,
      BigInt(this.#random()) | 1n,
    ];
    return [this.#pick(this.#tables) + 8 * (this.#random() % 512), word(this.#pick(entries))];
  }

  #name(): readonly [number, Uint8Array] {
    const names = [
      '\x1b[2J\x1b[31m',
      '\x1b]0;title\x07',
      '\u009b31m',
      'a\nb\r\x00',
      '\xe2\x80\xae',
      '<img onerror=1>',
    ];
    const comm = this.#guest.layout.field('task_struct', 'comm');
    const task = this.#pick([...this.#guest.tasks.values()]);
    return [
      this.#guest.physical(task) + comm.offset,
      Buffer.from(this.#pick(names), 'latin1').subarray(0, 16),
    ];
  }

  #signal(task: bigint): bigint {
    const at = this.#guest.physical(task) + Number(this.#guest.offset('task_struct', 'signal'));
    return Buffer.from(this.#guest.image.load(at, 8)).readBigUInt64LE();
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#random() % from.length]!;
  }
}

function word(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes;
}
