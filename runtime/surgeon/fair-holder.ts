import type { Constants } from '../code/prove.ts';
import type { WayOut } from '../code/way-out.ts';
import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import { get, type Word } from '../edit/member.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import type { Guest } from '../guest/guest.ts';
import type { GuestCpu } from '../guest/percpu.ts';
import type { Domain, VcpuRegisters } from '../hypervisor/types.ts';
import { optionalField } from '../layout/members.ts';
import type { SymbolName } from '../members/symbols.ts';
import { advance, type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { FairSurgery } from '../technique/fair/fair.ts';
import { type FairGuest, fairMembers } from '../technique/fair/members.ts';
import type { Shares } from '../technique/fair/shares.ts';
import { FairSplice } from '../technique/fair/splice.ts';
import { FairState } from '../technique/fair/state.ts';
import { spliceBits, stateBits } from '../technique/proved-bits.ts';
import { threadRefusal } from '../technique/refusal.ts';
import type { Step, Technique } from '../technique/step.ts';
import type { GiveBack, Holder, ThreadStanding } from './holder.ts';
import type { WakeHolder } from './wake-holder.ts';

/**
 * @param wayOut how stacks look on the way to user mode, as proved on the guest's code
 * @throws DomschedError `layout-absent-member`; `refused` for a constant that is not proved
 */
export function fairGuest(guest: Guest, constants: Constants, wayOut: WayOut): FairGuest {
  const symbol = (name: SymbolName) => guestVirtual(guest.layout.requireSymbol(name) + guest.kernel.slide);
  return {
    members: fairMembers(guest.layout),
    bits: spliceBits(constants),
    stateBits: stateBits(constants),
    queues: guest.cpus.map((cpu) => ({
      cpu: cpu.cpu,
      address: guest.percpu('runqueues', cpu),
      preemptCount: preemptCount(guest, cpu),
    })),
    fairSchedClass: symbol('fair_sched_class'),
    activeMask: symbol('__cpu_active_mask'),
    uclampUsed: guest.symbol('sched_uclamp_used'),
    tickNsec: tickNsec(guest, constants) ?? 0n,
    wayOut,
  };
}

/**
 * TICK_NSEC, or what the kernel computed from it, if an older layout lacks the function that shows it. Null if neither
 * is known; EEVDF needs it.
 */
export function tickNsec(guest: Guest, constants: Constants): bigint | null {
  if (constants.missing(['TICK_NSEC']) === null) return constants.get('TICK_NSEC');
  const address = guest.symbol('tick_nsec');
  return address === undefined ? null : guest.space.readU64(address);
}

function preemptCount(guest: Guest, cpu: GuestCpu): GuestVirtual {
  const hot = optionalField(guest.layout, 'pcpu_hot', 'preempt_count');
  return hot === undefined
    ? guest.percpu('__preempt_count', cpu)
    : advance(guest.percpu('pcpu_hot', cpu), hot.offset);
}

/**
 * Holds threads of kernels with CFS or EEVDF: by parking, or on request by `splice` or `state`, which are all there is where
 * nothing can be parked. The thread itself shows how it is held, so each is released the right way.
 */
export class FairHolder implements Holder {
  readonly techniques: readonly Technique[];
  readonly renicesHeld = true;
  /** Parks threads, or only wakes them. */
  readonly #base: WakeHolder;
  /** Null if something that it needs is not proved. */
  readonly #splice: FairSplice | null;
  readonly #state: FairState | null;
  readonly #ptrace: Word;

  readonly shares?: Shares;
  readonly sharesRefused?: string;

  readonly refused: ReadonlyMap<Technique, string>;

  /**
   * @param base a holder that parks threads, or one that only wakes them
   * @param shares weights of groups, or why they are left alone
   * @param refused why threads cannot be held by one way or another
   */
  constructor(
    guest: FairGuest,
    base: WakeHolder,
    shares: Shares | string,
    refused: ReadonlyMap<Technique, string> = new Map(),
  ) {
    if (typeof shares === 'string') this.sharesRefused = shares;
    else this.shares = shares;
    this.refused = refused;
    const fair = new FairSurgery(guest);
    const { stateBits } = guest;
    this.#ptrace = guest.members.task_struct.ptrace;
    this.#base = base;
    this.#splice = refused.has('splice') ? null : new FairSplice(guest, fair);
    this.#state =
      stateBits === null || refused.has('state') ? null : new FairState(guest, stateBits, fair, base.irqWork);
    this.techniques = [
      ...base.techniques,
      ...(this.#splice === null ? [] : (['splice'] as const)),
      ...(this.#state === null ? [] : (['state'] as const)),
    ];
  }

  /** Parking needs no moment, so it is what is done where it can be. */
  get automatic(): readonly Technique[] {
    return this.techniques.includes('park') ? ['park'] : this.techniques;
  }

  prepare(domain: Domain, memory: MemoryView): Promise<void> {
    return this.#base.prepare(domain, memory);
  }

  observe(vcpus: ReadonlyMap<number, VcpuRegisters>): void {
    this.#state?.observe(vcpus);
  }

  needsRegisters(techniques: readonly Technique[]): boolean {
    return techniques.includes('state');
  }

  /** Plans that edit a queue bring the invariants of that queue. */
  invariants(): Invariant[] {
    return this.#base.invariants();
  }

  /** Each plan checks the locks of what it edits. */
  checkLocks(): void {}

  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding {
    const standing = this.#base.standing(memory, thread);
    if (standing === 'exempt') return standing;
    if (this.#splice?.isHeld(memory, thread) || this.#state?.isHeld(memory, thread)) return 'held';
    return this.#state?.isMarked(memory, thread) ? 'leaving' : standing;
  }

  planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null {
    if (this.#state?.isMarked(draft, thread)) return this.#state.planAgain(draft, thread);
    const may = (technique: Technique) =>
      techniques.includes(technique) && this.techniques.includes(technique);
    if (may('park')) return this.#base.planHold(draft, thread, techniques);
    if (get(draft, thread, this.#ptrace) !== 0n) throw threadRefusal(thread, 'is under a tracer');
    if (!this.#base.mayHold(draft, thread)) return null;
    const splice = may('splice') ? this.#splice?.planHold(draft, thread) : null;
    return splice ?? (may('state') ? (this.#state?.planHold(draft, thread) ?? null) : null);
  }

  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null {
    if (this.#base.standing(draft, thread) === 'exempt') return null;
    if (this.#splice?.isHeld(draft, thread)) return this.#splice.planRelease(draft, thread);
    if (!this.#state?.isMarked(draft, thread)) return this.#base.planRelease(draft, thread);
    return this.#state.planRelease(draft, thread, this.#base.listForWork(draft, thread));
  }

  planGiveBack(draft: Draft, threads: () => readonly GuestVirtual[]): GiveBack {
    return this.#base.planGiveBack(draft, threads);
  }

  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] | 'later' {
    return this.#base.planRenice(draft, thread, nice);
  }
}
