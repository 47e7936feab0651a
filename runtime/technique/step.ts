import type { Invariant } from '../edit/edit.ts';

/**
 * Ways to stop a thread from outside. `splice`: unlink it from its run queue. `state`: have the guest's own
 * `schedule()` take it off. `park`: have it wait in the guest's own freezer trap.
 */
export type Technique = 'splice' | 'state' | 'park';

/** An interrupt that a plan would like the guest to get. Without it the next timer tick does the same, later. */
export interface WantedInterrupt {
  /** The kernel's number. */
  readonly cpu: number;
  readonly kind: 'reschedule' | 'irq-work';
}

/** What a plan is to achieve. */
export interface Step {
  /** Null for one that only gives back what an earlier one took. */
  readonly technique: Technique | null;
  /** What has to be true of what it edits, before and after, beside those of all queues. */
  readonly invariants?: readonly Invariant[];
  readonly outcome: readonly Invariant[];
  /** What would bring it about sooner. */
  readonly interrupts?: readonly WantedInterrupt[];
}
