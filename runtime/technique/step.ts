import type { Invariant } from '../edit/edit.ts';

/**
 * Ways to stop a thread from outside. `splice` unlinks it from its run queue, `state` has the guest's own `schedule()`
 * take it off, and `park` has it wait in the guest's own freezer trap.
 */
export type Technique = 'splice' | 'state' | 'park';

/** An interrupt that would help a plan. Without it the next timer tick does the same, later. */
export interface WantedInterrupt {
  /** The kernel's number of the CPU. */
  readonly cpu: number;
  readonly kind: 'reschedule' | 'irq-work';
}

/** What one plan is to achieve. */
export interface Step {
  /** Null for a step that only gives back what an earlier one took. */
  readonly technique: Technique | null;
  /** Checks of what it edits, before and after, besides those of all queues. */
  readonly invariants?: readonly Invariant[];
  readonly outcome: readonly Invariant[];
  /** Interrupts that would bring it about sooner. */
  readonly interrupts?: readonly WantedInterrupt[];
}
