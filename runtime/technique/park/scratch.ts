/**
 * Finds room in a guest for the few words that a technique forges: bytes that no member covers in the target's own
 * `task_struct`, or in a CPU's run queue or task state segment.
 *
 * A hole lives as long as its structure, and nothing in the kernel can name it. Only a copy of the whole structure
 * touches it: `dup_task_struct()` makes one into a child, where it means nothing. Run queues are never freed or copied.
 */
import type { MemberLayout } from '../../layout/types.ts';
import type { LayoutView, StructView } from '../../layout/view.ts';

/** Bytes of a structure that none of its members covers. */
export interface Hole {
  /** Offset of its first byte in the outermost structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The structure whose padding it is: the outermost one or one embedded in it. */
  readonly owner: string;
}

/**
 * Holes of a structure and of the structures embedded in it, in ascending order. Anything that is not known to be
 * unused counts as used: unions, arrays, storage units of bit fields, and embedded structures that the layout lacks.
 */
export function holesOf(layout: LayoutView, name: string): Hole[] {
  return within(layout, layout.requireStruct(name), 0).sort((a, b) => a.offset - b.offset);
}

function within(layout: LayoutView, struct: StructView, base: number): Hole[] {
  const used = new Uint8Array(struct.size);
  const cover = ({ offset, size }: { offset: number; size: number }) => used.fill(1, offset, offset + size);
  const holes: Hole[] = [];
  for (const anonymous of struct.anonymous) if (anonymous.kind === 'union') cover(anonymous);
  for (const member of struct.members.values()) {
    cover(member);
    const embedded = embeddedStruct(layout, member);
    if (embedded !== undefined) holes.push(...within(layout, embedded, base + member.offset));
  }
  for (let start = used.indexOf(0); start >= 0; ) {
    const next = used.indexOf(1, start);
    const end = next < 0 ? struct.size : next;
    holes.push({ offset: base + start, size: end - start, owner: struct.name });
    start = next < 0 ? -1 : used.indexOf(0, end);
  }
  return holes;
}

function embeddedStruct(layout: LayoutView, member: MemberLayout): StructView | undefined {
  if (member.kind !== 'struct' || member.struct === undefined || member.in !== undefined) return undefined;
  const found = layout.struct(member.struct);
  return found?.kind === 'struct' ? found : undefined;
}

/**
 * Structures whose padding may be used. Others are not safe: `proc_sched_set_task()` clears a task's whole `stats`, and
 * `thread` is copied and saved in hardware formats.
 */
const OWNERS = {
  task_struct: ['task_struct', 'sched_entity'],
  rq: ['rq', 'cfs_rq'],
  /** There is one for each CPU, made of whole pages; the hardware does not look beyond its limit. */
  tss_struct: ['tss_struct'],
  /** Its registers are left out, because they are saved and restored as a whole. */
  fpu: ['fpu', 'fpstate'],
} as const satisfies Readonly<Record<string, readonly string[]>>;

/**
 * Places for `size` bytes, aligned to 8, in holes of a structure; the largest holes of the structure itself come first.
 * @returns offsets in the structure
 */
export function homesFor(layout: LayoutView, struct: keyof typeof OWNERS, size: number): number[] {
  const owners: readonly string[] = OWNERS[struct];
  const holes = holesOf(layout, struct).filter(({ owner }) => owners.includes(owner));
  holes.sort((a, b) => owners.indexOf(a.owner) - owners.indexOf(b.owner) || b.size - a.size);
  const homes: number[] = [];
  for (const hole of holes) {
    const end = hole.offset + hole.size;
    for (let start = (hole.offset + 7) & ~7; start + size <= end; start += (size + 7) & ~7) homes.push(start);
  }
  return homes;
}
