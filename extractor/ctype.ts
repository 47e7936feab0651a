import type { TypeNode, TypeRef } from './graph.ts';

/**
 * C types of a type graph: how they resolve and how gdb spells them.
 *
 * The graph comes from an untrusted file, so every walk is bounded: a typedef of itself, endlessly nested pointers or
 * functions whose parameters double at each level raise {@link TypeGraphError}.
 */

/** Steps through typedefs and qualifiers; the kernel's longest chain has fewer than ten. */
const MAX_CHAIN = 128;
/** Nodes in the spelling of one type; the longest of Linux 6.12 has about fifty. */
const MAX_SPELLING_NODES = 2000;
const MAX_SPELLING_DEPTH = 64;

/** A type graph that no compiler produces. The caller knows which file is at fault. */
export class TypeGraphError extends Error {
  override readonly name = 'TypeGraphError';
}

type Qualifier = 'const' | 'volatile' | 'restrict' | 'atomic';

/** In gdb's printing order, whatever the order in the debug information. */
const QUALIFIER_SPELLING: readonly (readonly [Qualifier, string])[] = [
  ['const', 'const'],
  ['volatile', 'volatile'],
  ['restrict', 'restrict'],
  ['atomic', '_Atomic'],
];

/** The type behind typedefs and qualifiers. @throws TypeGraphError for an endless chain */
export function resolve(
  ref: TypeRef,
): Exclude<TypeNode, { kind: 'typedef' | 'const' | 'volatile' | 'restrict' | 'atomic' }> {
  let node = ref();
  for (let steps = 0; steps < MAX_CHAIN; steps++) {
    switch (node.kind) {
      case 'typedef':
      case 'const':
      case 'volatile':
      case 'restrict':
      case 'atomic':
        node = node.of();
        break;
      default:
        return node;
    }
  }
  throw new TypeGraphError('a chain of typedefs and qualifiers has no end');
}

/** An array's element counts, outermost first (0 if unknown), and its innermost element. */
export function flattenArray(ref: TypeRef): { dims: number[]; element: TypeRef } {
  const dims: number[] = [];
  let element = ref;
  for (let node = resolve(element); node.kind === 'array'; node = resolve(element)) {
    for (const dim of node.dims) dims.push(dim ?? 0);
    if (dims.length > MAX_CHAIN) throw new TypeGraphError('an array of arrays has no end');
    element = node.of;
  }
  return { dims, element };
}

/** Size in bytes; 0 for void, functions, flexible arrays and types without a definition. @throws TypeGraphError */
export function sizeOf(ref: TypeRef): number {
  const node = resolve(ref);
  switch (node.kind) {
    case 'base':
    case 'pointer':
    case 'struct':
    case 'union':
    case 'enum':
      return node.size;
    case 'array': {
      const { dims, element } = flattenArray(ref);
      const size = dims.reduce((product, dim) => product * dim, sizeOf(element));
      if (!Number.isSafeInteger(size)) throw new TypeGraphError('an array is larger than any memory');
      return size;
    }
    default:
      return 0;
  }
}

/** Renders a type as gdb's `whatis` does, e.g. `const char * const[2]` or `void (*)(struct rq *, int)`. */
export function spell(ref: TypeRef): string {
  const node = ref();
  // Two members in three have a plain name as their type.
  return isNamed(node) ? baseName(node) : new Speller().spell(ref, 0);
}

/** The parts of a C declarator before and after the declared name. */
interface Declarator {
  base: string;
  prefix: string;
  suffix: string;
}

class Speller {
  #nodes = 0;

  spell(ref: TypeRef, depth: number): string {
    const { base, prefix, suffix } = this.#declarator(ref, new Set(), false, false, depth);
    return prefix || suffix ? `${base} ${prefix}${suffix}` : base;
  }

  /**
   * Follows gdb's c_print_type: from inside out, with parentheses where a pointer meets an array or function, and a
   * space after a pointer's qualifiers only below another pointer.
   */
  #declarator(
    ref: TypeRef,
    outer: ReadonlySet<Qualifier>,
    underPointer: boolean,
    spaceAfterQualifiers: boolean,
    depth: number,
  ): Declarator {
    if (depth > MAX_SPELLING_DEPTH) throw new TypeGraphError('a type is nested too deeply to spell');
    const qualifiers = new Set(outer);
    let node = ref();
    for (let steps = 0; isQualifier(node); node = node.of()) {
      if (++steps > MAX_CHAIN) throw new TypeGraphError('a chain of qualifiers has no end');
      qualifiers.add(node.kind);
    }
    if (++this.#nodes > MAX_SPELLING_NODES) throw new TypeGraphError('a type is too long to spell');
    switch (node.kind) {
      case 'pointer': {
        const target = this.#declarator(node.to, new Set(), true, true, depth + 1);
        const words = qualifierWords(qualifiers);
        const own = words ? ` ${words}${spaceAfterQualifiers ? ' ' : ''}` : '';
        return { ...target, prefix: `${target.prefix}*${own}` };
      }
      case 'array': {
        // C has no qualified arrays: the qualifier belongs to the element.
        const element = this.#declarator(node.of, qualifiers, false, spaceAfterQualifiers, depth + 1);
        const bounds = node.dims.map((dim) => (dim === null ? '[]' : `[${dim}]`)).join('');
        return {
          base: element.base,
          prefix: underPointer ? `${element.prefix}(` : element.prefix,
          suffix: `${underPointer ? ')' : ''}${bounds}${element.suffix}`,
        };
      }
      case 'function': {
        const returns = this.#declarator(node.returns, new Set(), false, false, depth + 1);
        const parameters = node.parameters.map((parameter) => this.spell(parameter, depth + 1));
        if (node.variadic) parameters.push('...');
        else if (parameters.length === 0 && !node.unprototyped) parameters.push('void');
        return {
          base: returns.base,
          prefix: underPointer ? `${returns.prefix}(` : returns.prefix,
          suffix: `${underPointer ? ')' : ''}(${parameters.join(', ')})${returns.suffix}`,
        };
      }
      default: {
        const words = qualifierWords(qualifiers);
        return { base: words ? `${words} ${baseName(node)}` : baseName(node), prefix: '', suffix: '' };
      }
    }
  }
}

/** A type whose name is its spelling. */
type NamedNode = Exclude<TypeNode, { kind: 'pointer' | 'array' | 'function' | Qualifier }>;

function isNamed(node: TypeNode): node is NamedNode {
  return node.kind !== 'pointer' && node.kind !== 'array' && node.kind !== 'function' && !isQualifier(node);
}

function isQualifier(node: TypeNode): node is Extract<TypeNode, { kind: Qualifier }> {
  return (
    node.kind === 'const' || node.kind === 'volatile' || node.kind === 'restrict' || node.kind === 'atomic'
  );
}

function qualifierWords(qualifiers: ReadonlySet<Qualifier>): string {
  return QUALIFIER_SPELLING.filter(([qualifier]) => qualifiers.has(qualifier))
    .map(([, word]) => word)
    .join(' ');
}

function baseName(node: NamedNode): string {
  switch (node.kind) {
    case 'base':
      return canonicalBaseName(node.name);
    case 'void':
      return 'void';
    case 'typedef':
      return node.name;
    case 'forward':
      return `${node.tag} ${node.name}`;
    default:
      return `${node.kind} ${node.name ?? '{...}'}`;
  }
}

const INTEGER = /^(?:signed|unsigned|short|long|int)(?: (?:signed|unsigned|short|long|int))*$/;

/**
 * gcc names integer types `long unsigned int`, clang `unsigned long`; gdb prints the shorter form for both. Other words
 * (`__int128 unsigned`, `complex double`) stay unchanged.
 */
export function canonicalBaseName(name: string): string {
  if (!INTEGER.test(name)) return name;
  const words = name.split(' ');
  const longs = words.filter((word) => word === 'long').length;
  const size = words.includes('short') ? 'short' : longs ? Array(longs).fill('long').join(' ') : 'int';
  return words.includes('unsigned') ? `unsigned ${size}` : size;
}
