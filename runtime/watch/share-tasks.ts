import type { NamedAction } from '../policy/combine.ts';
import type { DomainShareKeeper, ShareKind } from './domain-share.ts';
import { NOBODY } from './reconcile.ts';

/** A weight or cap to set or to restore. */
export interface ShareTask {
  readonly kind: ShareKind;
  readonly value: number | 'back';
  readonly policy: string;
  readonly reason: string;
}

/** The changes that lead from a domain's present share to the wanted one. */
export function shareTasks(share: DomainShareKeeper, wanted: readonly NamedAction[]): ShareTask[] {
  const tasks: ShareTask[] = [];
  for (const kind of ['weight', 'cap'] as const) {
    const action = wanted.find(({ type }) => type === kind);
    const value = action && (action as Partial<Record<ShareKind, number>>)[kind];
    if (value === undefined) {
      if (share.isSet(kind)) tasks.push({ kind, value: 'back', ...NOBODY });
    } else if (share.wanted(kind) !== value && (share.isSet(kind) || share.current[kind] !== value)) {
      tasks.push({ kind, value, policy: action!.policy, reason: action!.reason });
    }
  }
  return tasks;
}
