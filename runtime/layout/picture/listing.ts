import type { KernelFacts, MemberLayout } from '../types.ts';
import type { StructView } from '../view.ts';
import { sizeFacts, sourceFacts } from './facts.ts';
import { CACHE_LINE, outline } from './outline.ts';

const TYPE_WIDTH = 28;
const COMMENT_AT = 60;

/** Prints a structure as C in the style of pahole: offset and size of each member, holes, cache lines, totals. */
export function listing(struct: StructView, kernel: KernelFacts): string {
  const lines: string[] = [`${struct.kind} ${struct.sourceName} {`];
  const found = outline(struct);
  const gaps = new Map(
    found.pieces.filter((piece) => piece.role === 'hole').map((piece) => [piece.offset + piece.size, piece]),
  );
  let boundary = CACHE_LINE;
  const open: number[] = [];
  const close = () => {
    open.pop();
    lines.push(`${indent(open.length + 1)}};`);
  };
  for (const [name, member] of struct.members) {
    const chain = chainOf(struct, member);
    while (open.length > 0 && open[open.length - 1] !== chain[open.length - 1]) close();
    const start = chain.length > open.length ? struct.anonymous[chain[open.length]!]!.offset : member.offset;
    const gap = gaps.get(start);
    if (gap && open.length === 0) {
      gaps.delete(start);
      lines.push('', `        /* hole of ${gap.size} ${gap.size === 1 ? 'byte' : 'bytes'} */`, '');
    }
    if (struct.kind === 'struct' && start >= boundary) {
      const line = Math.floor(start / CACHE_LINE);
      const past = start - line * CACHE_LINE;
      const where = past === 0 ? '' : ` was ${past} ${past === 1 ? 'byte' : 'bytes'} ago`;
      lines.push(`        /* --- cache line ${line}, byte ${line * CACHE_LINE}${where} --- */`);
      boundary = (line + 1) * CACHE_LINE;
    }
    for (const index of chain.slice(open.length)) {
      open.push(index);
      lines.push(`${indent(open.length)}${struct.anonymous[index]!.kind} {`);
    }
    lines.push(...memberLines(name, member, open.length + 1));
  }
  while (open.length > 0) close();
  lines.push('', `        /* ${sizeFacts(struct, found).join(', ')} */`, '};');
  lines.push(`/* Linux ${kernel.release}, ${sourceFacts(kernel).join(', ')} */`);
  return `${lines.join('\n')}\n`;
}

/** Anonymous structs and unions around a member, outermost first. */
function chainOf(struct: StructView, member: MemberLayout): number[] {
  const chain: number[] = [];
  for (let index = member.in; index !== undefined; index = struct.anonymous[index]?.in) chain.unshift(index);
  return chain;
}

function memberLines(name: string, member: MemberLayout, depth: number): string[] {
  const place =
    member.bitSize === undefined
      ? `${String(member.offset).padStart(6)} ${String(member.size).padStart(6)}`
      : `${String(member.offset).padStart(6)}:${String(member.bitOffset ?? 0).padStart(2)} ${String(member.bitSize).padStart(2)} bits`;
  const comment = `/* ${place} */`;
  const inner = Object.entries(member.members ?? {});
  if (inner.length === 0) {
    const text = `${indent(depth)}${declaration(name, member)};`;
    return [`${text.padEnd(COMMENT_AT)} ${comment}`];
  }
  const isUnion = /^(?:const |volatile )*union\b/.test(member.type);
  return [
    `${indent(depth)}${isUnion ? 'union' : 'struct'} {`,
    ...inner.flatMap(([innerName, innerMember]) => memberLines(innerName, innerMember, depth + 1)),
    `${`${indent(depth)}} ${name}${/(?:\[[0-9]*\])+$/.exec(member.type)?.[0] ?? ''};`.padEnd(COMMENT_AT)} ${comment}`,
  ];
}

/**
 * Makes a C declaration from a type in gdb's spelling: the name goes before array bounds and into function pointers.
 */
function declaration(name: string, member: MemberLayout): string {
  const [, base = member.type, bounds = ''] = /^(.*?) ?((?:\[[0-9]*\])*)$/s.exec(member.type) ?? [];
  const bits = member.bitSize === undefined ? '' : `:${member.bitSize}`;
  if (base.includes('(*)')) return `${base.replace('(*)', `(*${name}${bounds})`)}${bits}`;
  const pointer = /\*+$/.exec(base)?.[0] ?? '';
  const plain = base.slice(0, base.length - pointer.length).trimEnd();
  return `${plain.padEnd(TYPE_WIDTH)} ${pointer}${name}${bounds}${bits}`;
}

function indent(depth: number): string {
  return ' '.repeat(8 * depth);
}
