import type { Constants } from '../code/prove.ts';
import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import type { Guest } from '../guest/guest.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { type ParkMembers, parkMembers } from '../technique/park/members.ts';
import { Park } from '../technique/park/park.ts';
import { type ParkBits, parkBits } from '../technique/proved-bits.ts';
import { threadRefusal } from '../technique/refusal.ts';
import type { Step, Technique } from '../technique/step.ts';
import type { Holder, ThreadStanding } from './holder.ts';
import { type WakeGuest, WakeHolder, wakeGuest } from './wake-holder.ts';

/** What parking must know about one guest. */
export interface ParkGuest extends WakeGuest {
  readonly members: ParkMembers;
  readonly bits: ParkBits;
  /** Address of `recalc_sigpending()`. */
  readonly recalcSigpending: GuestVirtual;
}

/** @throws DomschedError `layout-absent-member`, `refused` */
export function parkGuest(guest: Guest, constants: Constants): ParkGuest {
  return {
    ...wakeGuest(guest, constants),
    members: parkMembers(guest.layout),
    bits: parkBits(constants),
    recalcSigpending: guestVirtual(guest.layout.requireSymbol('recalc_sigpending') + guest.kernel.slide),
  };
}

/**
 * Holds threads of kernels from 5.2 on in the kernel's own freezer trap, whatever they are doing.
 *
 * A thread that sleeps in a system call is held at once: when it wakes it parks before it runs code of its program. A
 * running or ready thread parks on its way back to user mode, at the next interrupt of its CPU.
 */
export class ParkHolder extends WakeHolder {
  override readonly techniques: readonly Technique[] = ['park'];
  readonly #park: Park;
  readonly #recalcSigpending: GuestVirtual;

  /** @param beside what the kernel offers besides parking, and why not more */
  constructor(guest: ParkGuest, beside: Pick<Holder, 'refused' | 'shares' | 'sharesRefused'> = {}) {
    super(guest, beside);
    this.#recalcSigpending = guest.recalcSigpending;
    this.#park = new Park(guest.members, guest.bits, this.works, guest.recalcSigpending);
  }

  protected override calls(): GuestVirtual[] {
    return [this.#recalcSigpending, ...super.calls()];
  }

  override standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding {
    const state = this.#park.stateOf(memory, thread);
    switch (state) {
      case 'parked':
      case 'stopped':
        return 'held';
      case 'armed':
      case 'entering':
        return this.#park.isAsleep(memory, thread) ? 'held' : 'leaving';
      default:
        return super.standing(memory, thread);
    }
  }

  override planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null {
    const state = this.#park.stateOf(draft, thread);
    if (state === 'free' && !techniques.includes('park')) return null;
    if (!this.mayHold(draft, thread)) return null;
    const outcome = [this.#park.planArm(draft, thread)];
    const cpu = this.currentOn(draft, thread);
    const interrupts = cpu === undefined ? [] : [{ cpu: cpu.cpu, kind: 'reschedule' as const }];
    return { technique: 'park', outcome, interrupts };
  }

  /**
   * Whether a thread may be held now.
   * @returns false if it is held or about to be, or if its wake-up is under way
   * @throws DomschedError `refused` for a thread that the guest itself froze, or that could not be released
   */
  override mayHold(memory: MemoryView, thread: GuestVirtual): boolean {
    const state = this.#park.stateOf(memory, thread);
    if (state === 'frozen') {
      throw threadRefusal(thread, 'is frozen by the guest itself (cgroup.freeze)');
    }
    return super.mayHold(memory, thread) && state === 'free';
  }

  override planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null {
    switch (this.#park.stateOf(draft, thread)) {
      case 'armed':
        if (this.#park.mayBeEntering(draft, thread)) return 'later';
        if (this.#park.isTrapped(draft, thread))
          return this.#planWake(draft, thread, () => this.#park.planDisarm(draft, thread));
        return { technique: 'park', outcome: [this.#park.planDisarm(draft, thread)] };
      case 'stopped':
        this.works.checkLocks(draft, thread);
        return { technique: 'park', outcome: [this.#park.planUnflag(draft, thread)] };
      case 'entering':
        // Between its work and the trap its position is unknown; it arrives within microseconds.
        return 'later';
      case 'parked':
        return this.#planWake(draft, thread, () => this.#park.planUnflag(draft, thread));
      case 'exempt':
      case 'free':
      case 'frozen':
        return super.planRelease(draft, thread);
    }
  }

  /** @param planFree plans that the woken thread does not re-enter the trap */
  #planWake(draft: Draft, thread: GuestVirtual, planFree: () => Invariant): Step | 'later' {
    this.works.checkLocks(draft, thread);
    const list = this.listForWork(draft, thread);
    // The wake-up comes first: alone, it only makes the thread check the trap and stay.
    const woken = this.irqWork.planPush(draft, thread, list);
    if (woken === null) return 'later';
    const outcome = [woken, planFree()];
    return { technique: 'park', outcome, interrupts: [{ cpu: list.cpu, kind: 'irq-work' }] };
  }
}
