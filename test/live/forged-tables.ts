import { MemoryKernel } from '../../extractor/memory/memory-kernel.ts';
import { kernelMemory } from '../../runtime/guest/identify/from-memory.ts';
import { kernelImage } from '../../runtime/guest/identify/identify.ts';
import type { FrameNumber } from '../../runtime/hypervisor/frame.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import type { Dice } from './dice.ts';

/** Structures that a guest is read and parked by, and members that surely matter to it. */
const STRUCTURES = new Set([
  ...['task_struct', 'thread_info', 'signal_struct', 'sighand_struct', 'pid', 'cred', 'css_set'],
  ...['rq', 'cfs_rq', 'sched_entity', 'irq_work', 'callback_head', 'mm_struct', 'kernfs_node'],
]);
const MATTER = new Set([
  ...[
    '__state',
    'flags',
    'jobctl',
    'on_rq',
    'on_cpu',
    'prio',
    'static_prio',
    'normal_prio',
    'se',
    'sched_class',
  ],
  ...[
    'tasks',
    'thread_node',
    'thread_head',
    'signal',
    'sighand',
    'group_leader',
    'real_parent',
    'pid',
    'tgid',
    'comm',
  ],
  ...[
    'stack',
    'task_works',
    'usage',
    'rcu_users',
    'start_time',
    'utime',
    'exit_state',
    'cgroups',
    'nr_threads',
  ],
  ...['curr', 'idle', '__lock', 'nr_running', 'cfs', 'siglock', 'load', 'vruntime', 'func', 'node', 'next'],
]);
/** include/uapi/linux/btf.h: kinds of types that are followed by more than their record, and by how many bytes each. */
const STRUCT = 4;
const MORE: Readonly<Record<number, { each?: number; once?: number }>> = {
  1: { once: 4 }, // INT
  3: { once: 12 }, // ARRAY
  4: { each: 12 }, // STRUCT
  5: { each: 12 }, // UNION
  6: { each: 8 }, // ENUM
  13: { each: 8 }, // FUNC_PROTO
  14: { once: 4 }, // VAR
  15: { each: 12 }, // DATASEC
  17: { once: 4 }, // DECL_TAG
  19: { each: 12 }, // ENUM64
};
const RECORD = 12;
const OFFSET_IN_MEMBER = 8;
const BIT_FIELD = 2 ** 24;

/** Bytes to be written into a guest, at an address of its kernel. */
export interface Forgery {
  readonly address: bigint;
  readonly bytes: Buffer;
  readonly what: string;
}

/** A member's offset in bits, where the kernel's BTF says it. */
interface ToldMember {
  readonly struct: string;
  readonly member: string;
  readonly at: number;
  readonly bits: number;
  readonly most: number;
}

/** What a running kernel says of itself, and lies of a kind that a reader cannot see in the tables alone. */
export class ForgedTables {
  readonly #btfAt: bigint;
  readonly #members: readonly ToldMember[];
  readonly #tableAt: bigint;
  readonly #symbols: readonly { readonly name: string; readonly address: bigint }[];

  private constructor(kernel: MemoryKernel, slide: bigint) {
    const btf = kernel.section('.BTF')!;
    this.#btfAt = btf.address;
    this.#members = membersOf(Buffer.from(btf.read()));
    // Offsets to a base, in the order of the names (kernel/kallsyms.c).
    this.#tableAt = BigInt(kernel.evidence.ranges[0]!.address) + slide;
    this.#symbols = [...kernel.symbols()];
  }

  static async of(domain: Domain<FrameNumber>, slide: bigint): Promise<ForgedTables> {
    return new ForgedTables(
      await MemoryKernel.open(await kernelMemory('liar', await kernelImage(domain))),
      slide,
    );
  }

  /** Says that a member is elsewhere in its structure: any, or one that matters. */
  member(dice: Dice, matters: boolean): Forgery {
    const among = matters ? this.#members.filter(({ member }) => MATTER.has(member)) : this.#members;
    const { struct, member, at, bits, most } = dice.one(among);
    const far = dice.next() < 0.7 ? 64 * (dice.below(9) - 4) : 64 * dice.below(most / 64);
    const told = Math.max(0, Math.min(most, dice.next() < 0.7 ? bits + far : far));
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(told);
    return {
      address: this.#btfAt + BigInt(at),
      bytes,
      what: `${struct}.${member} at ${told / 8}, not ${bits / 8}`,
    };
  }

  /**
   * Says that a symbol is elsewhere, but still between its neighbours in the table.
   * @param used names of which one is to be forged
   * @param read reads the table
   */
  symbol(
    dice: Dice,
    used: readonly string[],
    read: (address: bigint, length: number) => Buffer,
  ): Forgery | null {
    const wanted = dice.one(used);
    const index = this.#symbols.findIndex(({ name }) => name === wanted);
    if (index < 1 || index + 1 >= this.#symbols.length) return null;
    const [before, own, after] = this.#symbols.slice(index - 1, index + 2).map(({ address }) => address);
    const to = dice.one([before!, after!, own! + 8n > after! ? after! : own! + 8n]);
    const address = this.#tableAt + 4n * BigInt(index);
    const bytes = read(address, 4);
    // Kernels up to 6.14: one of a CPU's own variables is itself, any other goes down from the base (see kallsyms/addresses.ts).
    const value = bytes.readInt32LE();
    bytes.writeInt32LE(value < 0 ? value - Number(to - own!) : value + Number(to - own!));
    return { address, bytes, what: `${wanted} ${Number(to - own!)} bytes further on` };
  }
}

function membersOf(btf: Buffer): ToldMember[] {
  const header = btf.readUInt32LE(4);
  const types = header + btf.readUInt32LE(8);
  const end = types + btf.readUInt32LE(12);
  const strings = header + btf.readUInt32LE(16);
  const name = (at: number) => btf.toString('latin1', strings + at, btf.indexOf(0, strings + at));
  const members: ToldMember[] = [];
  for (let at = types; at + RECORD <= end; ) {
    const info = btf.readUInt32LE(at + 4);
    const [kind, count] = [(info >> 24) & 0x1f, info & 0xffff];
    const { each = 0, once = 0 } = MORE[kind] ?? {};
    const struct = kind === STRUCT ? name(btf.readUInt32LE(at)) : '';
    for (let i = 0; STRUCTURES.has(struct) && i < count; i++) {
      const record = at + RECORD + each * i;
      const member = name(btf.readUInt32LE(record));
      const bits = btf.readUInt32LE(record + OFFSET_IN_MEMBER);
      const most = 8 * btf.readUInt32LE(at + 8) - 64;
      // In a structure that has bit fields the highest byte is the width of one.
      if (member !== '' && most > 64 && bits < BIT_FIELD && most < BIT_FIELD)
        members.push({ struct, member, at: record + OFFSET_IN_MEMBER, bits, most });
    }
    at += RECORD + once + each * count;
  }
  return members;
}
