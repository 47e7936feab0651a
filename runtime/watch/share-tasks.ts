import type { NamedAction } from '../policy/combine.ts';
import type { DomainShareKeeper, ShareKind } from './domain-share.ts';
import { NOBODY } from './reconcile.ts';

/** A weight or cap to set, or to put back. */
export interface ShareTask {
  readonly kind: ShareKind;
  readonly value: number | 'back';
  readonly policy: string;
  readonly reason: string;
}

/** What it takes to get from a domain's share to the one that is wanted. */
export function shareTasks(share: DomainShareKeeper, wanted: readonly NamedAction[]): ShareTask[] {
  const tasks: ShareTask[] = [];
  for (const kind of ['weight', 'cap'] as const) {
    const action = wanted.find(({ type }) => type === kind);
    const value =
      action === undefined
        ? undefined
        : action.type === 'weight'
          ? action.weight
          : action.type === 'cap'
            ? action.cap
            : undefined;
    if (value === undefined) {
      if (share.isSet(kind)) tasks.push({ kind, value: 'back', ...NOBODY });
    } else if (share.wanted(kind) !== value && (share.isSet(kind) || share.current[kind] !== value)) {
      tasks.push({ kind, value, policy: action!.policy, reason: action!.reason });
    }
  }
  return tasks;
}
