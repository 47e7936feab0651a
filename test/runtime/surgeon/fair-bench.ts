import { Draft } from '../../../runtime/edit/draft.ts';
import type { Edit } from '../../../runtime/edit/edit.ts';
import type { Word } from '../../../runtime/edit/member.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import type { VcpuRegisters } from '../../../runtime/hypervisor/types.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { advance, type GuestVirtual } from '../../../runtime/memory/address.ts';
import { FairHolder } from '../../../runtime/surgeon/fair-holder.ts';
import type { ThreadStanding } from '../../../runtime/surgeon/holder.ts';
import { ParkHolder } from '../../../runtime/surgeon/park-holder.ts';
import { WakeHolder } from '../../../runtime/surgeon/wake-holder.ts';
import type { FairGuest } from '../../../runtime/technique/fair/members.ts';
import { Shares, sharesMembers } from '../../../runtime/technique/fair/shares.ts';
import { noTrap, parkMembers, wakeMembers } from '../../../runtime/technique/park/members.ts';
import { niceMembers } from '../../../runtime/technique/park/nice.ts';
import type { Technique } from '../../../runtime/technique/step.ts';
import { niceBits, parkBits } from '../technique/bits.ts';
import { FairModel, type FairModelTask } from '../technique/fair/fair-guest.ts';

export const WORD: Word = { offset: 0, size: 8 };
export const INT: Word = { offset: 0, size: 4 };
const STACK_SIZE = 16_384;

/** Where a model's functions call each other, and how far above each of these places their own return address is. */
export const CALLS = {
  /** `__schedule()`: six words of its own, and five that it saves. */
  switching: [0xffff_ffff_8120_0100n, 80],
  scheduling: [0xffff_ffff_8120_0900n, 16],
  loop: [0xffff_ffff_8130_0040n, 24],
  last: [0xffff_ffff_8200_0070n, 8],
} as const;
/** From where a thread's stack pointer was saved to its registers. */
export const WORDS = 27;
/** In the kernel's text, and none of these. */
export const ELSEWHERE = 0xffff_ffff_8150_0123n;

/** Where a thread has `preferred_llc`, in the place of a name that no edit reads. */
export function llcOf(view: LayoutView): Word {
  return { offset: view.field('task_struct', 'comm').offset, size: 4, signed: true };
}

/** A guest with one CPU that a first thread runs on, and a second one that waits. */
export class Bench {
  readonly model: FairModel;
  readonly guest: FairGuest;
  readonly holder: FairHolder;
  readonly lazyList: GuestVirtual;
  readonly rootGroup: GuestVirtual;
  readonly prioToWeight: GuestVirtual;
  readonly prioToWmult: GuestVirtual;
  /** @throws Error of a kernel without groups */
  get shares(): Shares {
    if (this.holder.shares !== undefined) return this.holder.shares;
    throw new Error('this kernel has no groups');
  }
  readonly running: FairModelTask;
  readonly ready: FairModelTask;

  /** @param sharesCaches of a kernel with CONFIG_SCHED_CACHE (7.2): then each thread has the word of {@link llcOf} */
  constructor(
    view: LayoutView,
    refused: ReadonlyMap<Technique, string> = new Map(),
    uclampUsed = 0n,
    sharesCaches = false,
  ) {
    const model = new FairModel(view, 1);
    this.model = model;
    const key = model.take(16);
    model.put(key, INT, uclampUsed);
    this.guest = {
      ...model.guest,
      members: {
        ...model.guest.members,
        static_key: { enabled: INT },
        task_struct: {
          ...model.guest.members.task_struct,
          ...(sharesCaches && { preferred_llc: llcOf(view) }),
        },
      },
      uclampUsed: key,
      wayOut: {
        saved: 48,
        switching: new Map([CALLS.switching]),
        scheduling: new Map([CALLS.scheduling]),
        leaving: new Map([CALLS.loop]),
        last: new Map([CALLS.last]),
      },
    };
    const spec = { cpu: 0, group: 0, weight: 1024, policy: 0, vruntime: 0, slice: 3_000_000, queued: true };
    this.running = model.addTask(spec, true);
    this.ready = model.addTask(spec);
    model.write();
    this.lazyList = model.take(8);
    const queues = model.guest.queues;
    const wake = wakeMembers(view);
    const park = noTrap(view) === null ? parkMembers(view) : null;
    const [recalcSigpending, processTimeout] = [model.take(64), model.take(64)];
    const onlineMask = model.guest.activeMask;
    const { fairSchedClass } = model.guest;
    const tables = { prioToWeight: model.take(160), prioToWmult: model.take(160) };
    this.prioToWeight = tables.prioToWeight;
    this.prioToWmult = tables.prioToWmult;
    const nice = { members: niceMembers(view), bits: niceBits, fairSchedClass, ...tables, queues };
    const cpus = queues.map(({ cpu, address }) => ({
      cpu,
      queue: address,
      lazyList: this.lazyList,
      scratch: address,
    }));
    const functions = { recalcSigpending, processTimeout, putTask: model.take(64) };
    const wakeGuest = { members: wake, bits: parkBits, cpus, onlineMask, ...functions, nice };
    const base = park === null ? new WakeHolder(wakeGuest) : new ParkHolder({ ...wakeGuest, members: park });
    model.put(advance(tables.prioToWeight, 80), INT, 1024n);
    this.rootGroup = model.take(64 * 1024);
    const shares = this.#shares(view);
    this.holder = new FairHolder(this.guest, base, shares ?? 'it has no groups', refused);
    const sighand = model.take(view.requireStruct('sighand_struct').size);
    const set = model.take(view.requireStruct('css_set').size);
    if (park !== null) model.put(set, park.css_set.dfl_cgrp, model.take(view.requireStruct('cgroup').size));
    for (const { address } of model.tasks) {
      model.put(address, wake.task_struct.mm, 0x1000n);
      model.put(address, wake.task_struct.sighand, sighand);
      if (park !== null) model.put(address, park.task_struct.cgroups, set);
      const stack = model.take(STACK_SIZE);
      model.put(address, this.guest.members.task_struct.stack, stack);
      model.put(address, wake.task_struct.usage, 1n);
      this.stack(address);
    }
  }

  /**
   * The stack of a thread that was preempted on its way to user mode.
   * @param calls return addresses, by their place in it, instead of or besides the right ones
   * @param level privilege level in the registers at its top
   * @param words below these registers
   */
  stack(task: GuestVirtual, calls: Record<number, bigint> = {}, level = 3n, words = WORDS): void {
    const { task_struct, pt_regs } = this.guest.members;
    const end = this.model.load(task, task_struct.stack) + BigInt(STACK_SIZE);
    const pointer = end - BigInt(pt_regs.size + 8 * words);
    this.model.put(task, task_struct.sp, pointer);
    const right: Record<number, bigint> = {
      6: CALLS.switching[0],
      17: CALLS.scheduling[0],
      20: CALLS.loop[0],
      24: CALLS.last[0],
      26: ELSEWHERE,
    };
    for (let at = 0; at < words; at++) this.model.put(pointer + BigInt(8 * at), WORD, ELSEWHERE);
    for (const [at, address] of Object.entries({ ...right, ...calls }).filter(([at]) => Number(at) < words))
      this.model.put(pointer + BigInt(8 * Number(at)), WORD, address);
    this.model.put(advance(pointer as GuestVirtual, 8 * words), pt_regs.cs, 0x30n | level);
  }

  #shares(view: LayoutView): Shares | null {
    if (this.guest.members.groups === null) return null;
    const members = sharesMembers(view);
    this.model.put(this.rootGroup, members.task_group.shares, 1024n << 10n);
    return new Shares({ members, rootTaskGroup: this.rootGroup, prioToWeight: this.prioToWeight });
  }

  get(task: FairModelTask, field: Word): bigint {
    return this.model.load(task.address, field);
  }

  put(task: FairModelTask, field: Word, value: bigint): void {
    this.model.put(task.address, field, value);
  }

  get preemptCount(): bigint {
    return this.model.load(this.guest.queues[0]!.preemptCount, INT);
  }

  set preemptCount(value: bigint) {
    this.model.put(this.guest.queues[0]!.preemptCount, INT, value);
  }

  standing(task: FairModelTask): ThreadStanding {
    return this.holder.standing(new Draft(this.model.space), task.address);
  }

  observe(cpl: number): void {
    this.holder.observe(new Map([[0, { vcpu: 7, cpl } as VcpuRegisters]]));
  }

  /** @returns null when there was nothing to do at this moment */
  async hold(task: FairModelTask, ...techniques: Technique[]): Promise<Edit | null> {
    return this.#perform((draft) => this.holder.planHold(draft, task.address, techniques));
  }

  async release(task: FairModelTask): Promise<Edit | null> {
    return this.#perform((draft) => this.holder.planRelease(draft, task.address));
  }

  /** The guest's `schedule()` takes a thread with a sleeping state off its CPU and queue. */
  leave(task: FairModelTask): void {
    const { task_struct, rq } = this.guest.members;
    this.put(task, task_struct.on_rq, 0n);
    this.put(task, task_struct.on_cpu, 0n);
    const { address } = this.model.guest.queues[0]!;
    if (this.model.load(address, rq.curr) === task.address)
      this.model.put(address, rq.curr, this.model.load(address, rq.idle));
  }

  async #perform(plan: (draft: Draft) => ReturnType<FairHolder['planRelease']>): Promise<Edit | null> {
    await using guard = await this.model.domain.pause.acquire();
    const draft = new Draft(this.model.space);
    const step = plan(draft);
    if (step === null || step === 'later') return null;
    const invariants = [...this.holder.invariants(), ...(step.invariants ?? [])];
    const edit = draft.edit('test', invariants, step.outcome);
    await commit(this.model.domain, this.model.space, guard, edit);
    return edit;
  }
}
