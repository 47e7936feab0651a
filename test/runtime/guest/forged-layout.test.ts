/**
 * What a guest gets that forges what its layout is made of: members elsewhere in their structures, symbols that name each
 * other's places or memory beyond its own, page tables that lead there. Its kernel is read and edited by such a layout as
 * any is, its memory lies beside that of a guest that nobody touches, and every byte that is written is looked at.
 */
import process from 'node:process';
import test from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';
import { type KnownKernel, knownKernels } from '../../../runtime/layout/registry.ts';
import type { AnyLayout, MemberLayout, StructLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { advance, guestVirtual } from '../../../runtime/memory/address.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { ParkHolder } from '../../../runtime/surgeon/park-holder.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { parkMembers } from '../../../runtime/technique/park/members.ts';
import { ParkModel } from '../technique/park/park-guest.ts';
import { knownKernel, O1_KERNEL, SyntheticGuest, type SyntheticTask } from './synthetic.ts';

/** `make soak` has more. */
const ROUNDS = Number(process.env.DOMSCHED_FORGED ?? 80);
/** Frames of a guest: where its neighbour's begin. */
const OWN_FRAMES = 0x8_0000;
/** Structures that a member is looked for in when an O(1) guest is read or edited. */
const USED = ['task_struct', 'rq', 'prio_array', 'thread_info', 'x8664_pda', 'signal_struct', 'pid'];
const TASKS: readonly SyntheticTask[] = [
  { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
  { pid: 10, comm: 'backup', cpu: 0, ppid: 1, state: 'ready' },
  { pid: 11, comm: 'server', cpu: 0, ppid: 1, state: 'running' },
  { pid: 12, comm: 'other', cpu: 0, ppid: 1, state: 'ready', nice: 5 },
];

type RandomBelow = (below: number) => number;
/** Of a module, what a forger changes. */
type Forgeable = Record<string, Record<string, unknown>> & { $symbols: Record<string, bigint> };

const real = knownKernel(O1_KERNEL);
const { layout: module } = (await import(`${real.store}/${real.folder}/index.ts`)) as { layout: AnyLayout };

test('a forged layout: refused with nothing written, or what is written is in the RAM of the guest itself', async (t) => {
  const seen = new Map<string, number>();
  const count = (what: string) => seen.set(what, (seen.get(what) ?? 0) + 1);
  let written = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = generator(round + 1);
    const liar = await SyntheticGuest.make({ kernel: O1_KERNEL, cpus: 1, name: 'liar', tasks: TASKS });
    for (const task of liar.tasks.values()) liar.put(task, 'task_struct', 'time_slice', 25);
    // From the end of its own direct map on, the liar's tables lead to the neighbour's frames.
    for (let frame = 0; frame < OWN_FRAMES; frame += 512) {
      const address = liar.directMap + BigInt((OWN_FRAMES + frame) * FRAME_SIZE);
      liar.tables.map(address, OWN_FRAMES + frame, 2, 7n);
    }
    // Its neighbour looks just like it, in the same memory of the host.
    const { image } = liar;
    for (const frame of image.frames()) {
      image.store((OWN_FRAMES + frame) * FRAME_SIZE, image.load(frame * FRAME_SIZE, FRAME_SIZE));
    }
    const beyond = liar.directMap + BigInt(OWN_FRAMES * FRAME_SIZE);
    const forged = forge(random, module, USED, beyond);
    const before = image.clone();
    const { recorder } = liar.domain;
    recorder.recording = true;
    const known: KnownKernel = { ...real, load: async () => forged };
    const attached = await Guest.attach(liar.domain, [known]).catch((error: DomschedError) => error);
    t.is(recorder.count('write'), 0, 'to attach writes nothing');
    if (attached instanceof Guest) {
      count('attached');
      for (const verb of ['hold', 'renice', 'release'] as const) {
        for (const pid of [10, 11, 12]) {
          const then = image.clone();
          recorder.reset();
          const outcome = await edit(attached, verb, pid);
          count(`${verb} ${outcome}`);
          const writes = recorder.calls.filter((call) => call.kind === 'write');
          written += writes.length;
          const stray = writes.filter(({ frame }) => frame < 0 || frame >= OWN_FRAMES);
          t.deepEqual(stray, [], `round ${round}, ${verb} ${pid}`);
          // To be held, a thread that runs is asked to leave its CPU, and here nothing ever runs.
          const done = ['held', 'reniced', 'released', 'timeout'].includes(outcome);
          if (!done) t.deepEqual(changed(image, then), [], `round ${round}, ${verb} ${pid}: ${outcome}`);
        }
      }
      attached.detach();
    } else {
      t.true(attached instanceof DomschedError, String((attached as Error).stack));
      count(attached.code);
    }
    const strays = changed(image, before).filter((frame) => frame >= OWN_FRAMES);
    t.deepEqual(strays, [], `round ${round}: the neighbour's memory`);
  }
  t.log(`${written} ranges written`, Object.fromEntries([...seen].sort()));
  // Of some, what was forged is not what an edit is by; of most it is.
  t.true(written > 0 && (seen.get('hold held') ?? 0) > 0);
  t.true((seen.get('layout-disproved') ?? 0) > 0);
});

/** Frames of the guest that parking is tried in, and structures that it is by. */
const MODEL_FRAMES = 8192;
const PARKING = [
  'task_struct',
  'rq',
  'irq_work',
  'callback_head',
  'signal_struct',
  'sighand_struct',
  'css_set',
];

for (const { folder, store, release } of await knownKernels()) {
  if (!/^6\.(1|12)\..*-cloud-amd64$/.test(release)) continue;
  test(`${release}, parking by a forged layout: refused with nothing written, or written in its own RAM`, async (t) => {
    const { layout: real } = (await import(`${store}/${folder}/index.ts`)) as { layout: AnyLayout };
    const view = new LayoutView(real);
    const used = PARKING.filter((name) => Object.hasOwn(real, name));
    const seen = new Map<string, number>();
    let written = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const random = generator(round + 1);
      const model = new ParkModel(view);
      const { image, recorder } = model.domain;
      const threads = [model.addThread('user'), model.addThread('sleeping'), model.addThread('user')];
      // Behind its own memory its tables lead to a neighbour that looks like it.
      for (let i = 16; i < 32; i++) {
        model.put(0x3000n, { offset: 8 * i, size: 8 }, (BigInt(i) << 21n) | 0x83n);
      }
      for (const frame of image.frames()) {
        image.store((MODEL_FRAMES + frame) * FRAME_SIZE, image.load(frame * FRAME_SIZE, FRAME_SIZE));
      }
      const before = image.clone();
      for (const verb of ['planHold', 'planRelease'] as const) {
        for (const { address: own } of threads) {
          // A list may lead to the neighbour's thread as well.
          const address = random(4) > 0 ? own : advance(own, MODEL_FRAMES * FRAME_SIZE);
          const then = image.clone();
          recorder.reset();
          let outcome = 'nothing to do';
          try {
            const forged = forge(random, real, used, BigInt(MODEL_FRAMES * FRAME_SIZE));
            const guest = { ...forgedPlaces(random, model), members: parkMembers(forged) };
            await using guard = await model.domain.pause.acquire();
            const holder = new ParkHolder(guest);
            const draft = new Draft(model.space);
            const step =
              verb === 'planHold'
                ? holder.planHold(draft, address, ['park'])
                : holder.planRelease(draft, address);
            if (step !== null && step !== 'later') {
              await commit(
                model.domain,
                model.space,
                guard,
                draft.edit(verb, holder.invariants(), step.outcome),
              );
              outcome = 'written';
            }
          } catch (error) {
            if (!(error instanceof DomschedError)) throw error;
            outcome = error.code;
          }
          seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
          const writes = recorder.calls.filter((call) => call.kind === 'write');
          written += writes.length;
          t.deepEqual(
            writes.filter(({ frame }) => frame < 0 || frame >= MODEL_FRAMES),
            [],
            `round ${round}`,
          );
          if (outcome !== 'written') t.deepEqual(changed(image, then), [], `round ${round}: ${outcome}`);
        }
      }
      const strays = changed(image, before).filter((frame) => frame >= MODEL_FRAMES);
      t.deepEqual(strays, [], `round ${round}: the neighbour's memory`);
    }
    t.log(`${written} ranges written`, Object.fromEntries([...seen].sort()));
    t.true((seen.get('written') ?? 0) > 0);
    t.true(seen.size > 2, 'some are refused');
  });
}

/** What symbols say of a guest, one of them somewhere else in one of three rounds. */
function forgedPlaces(random: RandomBelow, { guest }: ParkModel): ParkModel['guest'] {
  if (random(3) > 0) return guest;
  const [first, ...rest] = guest.cpus;
  const place = guestVirtual(
    BigInt([MODEL_FRAMES * FRAME_SIZE + 64 * random(4096), 8 * random(4096 * 512), 8][random(3)]!),
  );
  const lies = [
    { cpus: [{ ...first!, scratch: place }, ...rest] },
    { cpus: [{ ...first!, lazyList: place }, ...rest] },
    { cpus: [{ ...first!, queue: place }, ...rest] },
    { onlineMask: place },
    { putTask: place },
  ];
  return { ...guest, ...pick(random, lies) };
}

/** Frames that are not byte for byte what they were. */
function changed(image: SyntheticGuest['image'], before: SyntheticGuest['image']): number[] {
  const content = (of: typeof image, frame: number) => of.load(frame * FRAME_SIZE, FRAME_SIZE);
  const frames = new Set([...image.frames(), ...before.frames()]);
  return [...frames].filter((frame) => Buffer.compare(content(image, frame), content(before, frame)) !== 0);
}

async function edit(guest: Guest, verb: 'hold' | 'renice' | 'release', pid: number): Promise<string> {
  try {
    const { domain } = guest;
    const surgeon = new Surgeon(domain as typeof domain & Required<typeof domain>, guest, holderFor(guest));
    const { processes } = await guest.take({ limitMs: 1 });
    const process = processes.find((candidate) => candidate.pid === pid);
    if (process === undefined) return 'not listed';
    if (verb === 'renice') return (await surgeon.renice(process, 3, { limitMs: 1 })).outcome;
    return (await surgeon[verb](process, { limitMs: 1 })).outcome;
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return error.code;
  }
}

/** The real layout with one to three lies in it. */
function forge(random: RandomBelow, module: AnyLayout, used: readonly string[], beyond: bigint): LayoutView {
  const forged = structuredClone(module) as unknown as Forgeable;
  const lies = 1 + random(3);
  for (let lie = 0; lie < lies; lie++) pick(random, LIES)(forged, random, used, beyond);
  return new LayoutView(forged as unknown as AnyLayout);
}

type Lie = (forged: Forgeable, random: RandomBelow, used: readonly string[], beyond: bigint) => void;
const LIES: readonly Lie[] = [
  // A member a few words further on, or anywhere in its structure.
  (forged, random, used) => {
    const { struct, member } = memberOf(forged, random, used);
    const room = struct.$size - member.offset - member.size;
    const far = random(2) === 0 ? 8 * (1 + random(4)) : 8 * random(Math.max(1, Math.floor(struct.$size / 8)));
    move(member, Math.min(Math.max(0, room), far));
  },
  // Two members of one size in each other's place.
  (forged, random, used) => {
    const { struct, member } = memberOf(forged, random, used);
    const others = membersOf(struct).filter(({ size }) => size === member.size);
    const other = pick(random, others);
    [member.offset, other.offset] = [other.offset, member.offset];
  },
  // Two symbols in each other's place.
  ({ $symbols }, random) => {
    const names = Object.keys($symbols);
    const [a, b] = [pick(random, names), pick(random, names)];
    [$symbols[a], $symbols[b]] = [$symbols[b]!, $symbols[a]!];
  },
  // A symbol a little elsewhere, or in the neighbour's memory, or where nothing is.
  ({ $symbols }, random, _used, beyond) => {
    const name = pick(random, Object.keys($symbols));
    const there = beyond + BigInt(random(OWN_FRAMES) * 64);
    $symbols[name] = [$symbols[name]! + BigInt(8 * (random(64) - 32)), there, 0x1000n, 2n ** 64n - 8n][
      random(4)
    ]!;
  },
  // A structure of another size.
  (forged, random, used) => {
    const { struct } = memberOf(forged, random, used);
    struct.$size = Math.max(struct.$size + 8 * random(16), 8);
  },
];

function memberOf(
  forged: Forgeable,
  random: RandomBelow,
  used: readonly string[],
): { struct: Struct; member: Writable } {
  const struct = forged[pick(random, used)] as unknown as Struct;
  return { struct, member: pick(random, membersOf(struct)) };
}

type Struct = { -readonly [K in '$size']: StructLayout[K] };
type Writable = { -readonly [K in keyof MemberLayout]: MemberLayout[K] };

function membersOf(struct: Struct): Writable[] {
  return Object.entries(struct)
    .filter(([name, member]) => !name.startsWith('$') && typeof member === 'object')
    .map(([, member]) => member as unknown as Writable);
}

function move(member: Writable, bytes: number): void {
  member.offset += bytes;
}

function pick<T>(random: RandomBelow, list: readonly T[]): T {
  return list[random(list.length)]!;
}

function generator(seed: number): RandomBelow {
  let state = Math.imul(seed, 0x9e37_79b1) >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
}
