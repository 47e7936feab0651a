import type { AnyLayout, MemberLayout, StructLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';

/** Bytes that a member had and has no more. */
export interface Rest {
  readonly offset: number;
  readonly size: number;
}

/** A plain number with 1/`divisor` of its bytes, at least one; undefined for what is none, or has no byte to lose. */
export function narrow(member: MemberLayout, divisor: number): MemberLayout | undefined {
  const { kind, size, bitSize } = member;
  if (kind !== 'int' || bitSize !== undefined || size === 1) return undefined;
  return { ...member, size: Math.max(1, size / divisor), type: `${member.type} (narrowed)` };
}

/**
 * A kernel's layout in which members are other ones.
 * @param change the member instead of one; undefined leaves it
 * @param more members that structures have besides
 * @param kept whether a member, as it is then, is there at all
 * @returns also, by structure, the bytes that its members gave up
 */
export async function narrowedLayout(
  kernel: string,
  change: (struct: string, name: string, member: MemberLayout) => MemberLayout | undefined,
  more: Readonly<Record<string, Readonly<Record<string, MemberLayout>>>> = {},
  kept: (member: MemberLayout) => boolean = () => true,
): Promise<{ layout: LayoutView; narrowed: ReadonlyMap<string, readonly Rest[]> }> {
  const module = (await import(`../../../generated/${kernel}/index.ts`)) as { layout: AnyLayout };
  const narrowed = new Map<string, Rest[]>();
  const entries = Object.entries(module.layout).map(([struct, value]) => {
    if (struct.startsWith('$')) return [struct, value];
    const members = Object.entries(value as StructLayout).map(([name, member]) => {
      if (name.startsWith('$')) return [name, member];
      const before = member as MemberLayout;
      const after = change(struct, name, before);
      if (after === undefined) return [name, member];
      const rest = { offset: after.offset + after.size, size: before.size - after.size };
      narrowed.set(struct, [...(narrowed.get(struct) ?? []), rest]);
      return [name, after];
    });
    return [
      struct,
      {
        ...Object.fromEntries(
          members.filter(([, member]) => typeof member !== 'object' || kept(member as MemberLayout)),
        ),
        ...more[struct],
      },
    ];
  });
  return { layout: new LayoutView(Object.fromEntries(entries) as AnyLayout), narrowed };
}
