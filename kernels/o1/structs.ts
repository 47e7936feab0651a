/**
 * Turns measured layouts of Linux 2.6.16 (kernels/facts) and a kernel .config into the headers that the O(1) guest is
 * compiled with. No offset is typed by a person: each one comes from the facts, and the C compiler proves every one of
 * them with a static assertion.
 *
 * usage: node structs.ts FACTS.json CONFIG OUTPUT_FOLDER
 * writes: autoconf.h (CONFIG_* macros), layout.h (structures), offsets.h (the same offsets for assembler)
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KernelConfig, readConfig } from '../config.ts';

export interface FactField {
  name: string;
  offset: number;
  size: number;
  type: string;
  count?: number;
  bit_offset?: number;
  bit_size?: number;
}

export interface FactStruct {
  size: number;
  kind: string;
  fields: FactField[];
}

export interface VariantFacts {
  kernel: string;
  variant: string;
  config: Record<string, string>;
  structs: Record<string, FactStruct>;
}

interface CType {
  size: number;
  align: number;
}

/** C's own arithmetic types on x86-64, bytes. */
const arithmetic: Record<string, number> = {
  char: 1,
  'unsigned short': 2,
  int: 4,
  'unsigned int': 4,
  long: 8,
  'unsigned long': 8,
  'long long': 8,
  'unsigned long long': 8,
};

/** Kernel type names that stand for something simple. Their sizes are proven by the assertions on their users. */
const simpleTypedefs: Record<string, { c: string } & CType> = {
  pid_t: { c: 'int', size: 4, align: 4 },
  uid_t: { c: 'unsigned int', size: 4, align: 4 },
  gid_t: { c: 'unsigned int', size: 4, align: 4 },
  cputime_t: { c: 'unsigned long', size: 8, align: 8 },
  size_t: { c: 'unsigned long', size: 8, align: 8 },
  u32: { c: 'unsigned int', size: 4, align: 4 },
  u64: { c: 'unsigned long long', size: 8, align: 8 },
  __u32: { c: 'unsigned int', size: 4, align: 4 },
  kernel_cap_t: { c: 'unsigned int', size: 4, align: 4 },
  atomic_t: { c: 'struct { volatile int counter; }', size: 4, align: 4 },
  mm_segment_t: { c: 'struct { unsigned long seg; }', size: 8, align: 8 },
  sigset_t: { c: 'struct { unsigned long sig[1]; }', size: 8, align: 8 },
};

/** Names 2.6.16 gives to structures of the facts. */
const aliases: Record<string, string> = {
  task_t: 'struct task_struct',
  prio_array_t: 'struct prio_array',
  runqueue_t: 'struct runqueue',
};

/** The area that FXSAVE fills must be 16-byte aligned (Intel SDM vol. 1, 10.5.1). */
const opaqueAlign: Record<string, number> = { 'union i387_union': 16 };

const roundUp = (n: number, align: number): number => Math.ceil(n / align) * align;
const isPointer = (type: string): boolean => type.includes('*');
const baseType = (type: string): string =>
  type
    .replace(/\[\d+\]/gu, '')
    .replaceAll('volatile', '')
    .trim();

/** The largest power of two up to 8 that divides every given number. */
function commonAlign(numbers: number[]): number {
  let align = 8;
  while (numbers.some((n) => n % align !== 0)) align /= 2;
  return align;
}

/** `int (*)(void *)` and a name make `int (*name)(void *)`; `char [16]` makes `char name[16]`. */
function declare(field: FactField): string {
  const { type, name } = field;
  if (type.includes('(*)')) return type.replace('(*)', `(*${name})`);
  const [, element, dimension] = /^(.*?)\s*(\[\d+\])?$/u.exec(type) ?? [];
  const gap = element?.endsWith('*') ? '' : ' ';
  const bits = field.bit_size === undefined ? '' : ` : ${field.bit_size}`;
  return `${element}${gap}${name}${dimension ?? ''}${bits}`;
}

export function layoutHeader(facts: VariantFacts): string {
  const { structs } = facts;
  const out = [
    `/* Made by structs.ts from the measured layout of Linux ${facts.kernel}, variant ${facts.variant}. */`,
    '#pragma once',
    '',
  ];
  const done = new Map<string, CType>();
  for (const [name, { c, size, align }] of Object.entries(simpleTypedefs)) {
    out.push(`typedef ${c} ${name};`);
    done.set(name, { size, align });
  }
  for (const [name, size] of Object.entries(arithmetic)) done.set(name, { size, align: size });

  const allFields = Object.values(structs).flatMap((s) => s.fields);
  const factOf = (type: string): [string, FactStruct] | undefined => {
    const key = (aliases[type] ?? type).replace(/^(struct|union) /u, '');
    const fact = structs[key];
    return fact === undefined ? undefined : [key, fact];
  };

  // Everything pointed to may stay incomplete, but must have been named at file scope.
  const pointees = new Set<string>();
  for (const { type } of allFields)
    if (isPointer(type)) for (const [tag] of type.matchAll(/struct \w+/gu)) pointees.add(tag);
  for (const name of Object.keys(structs))
    if (structs[name]?.kind === 'struct') pointees.add(`struct ${name}`);
  for (const tag of [...pointees].sort()) out.push(`${tag};`);
  for (const [name, target] of Object.entries(aliases)) out.push(`typedef ${target} ${name};`);
  const named = new Set([...done.keys(), ...Object.keys(aliases), 'void']);
  for (const { type } of allFields) {
    const pointed = baseType(type).replaceAll('*', '').trim();
    if (!isPointer(type) || type.includes('(') || pointed.startsWith('struct') || named.has(pointed))
      continue;
    if (factOf(pointed) !== undefined) continue;
    named.add(pointed);
    out.push(`typedef struct ${pointed.replace(/_t$/u, '')} ${pointed};`);
  }

  function need(type: string): CType {
    const ready = done.get(aliases[type] ?? type);
    if (ready !== undefined) return ready;
    const known = factOf(type);
    const made = known === undefined ? emitOpaque(type) : emitStruct(...known);
    done.set(aliases[type] ?? type, made);
    return made;
  }

  /** A type whose members nobody measured: an array of words with the measured size. */
  function emitOpaque(type: string): CType {
    const uses = allFields.filter((f) => !isPointer(f.type) && baseType(f.type) === type);
    const [first] = uses;
    if (first === undefined) throw new Error(`type ${type} is used by no member of the facts`);
    const size = first.size / (first.count ?? 1);
    const align = opaqueAlign[type] ?? commonAlign([size, ...uses.map((f) => f.offset)]);
    const word = { 1: 'unsigned char', 2: 'unsigned short', 4: 'unsigned int' }[align] ?? 'unsigned long';
    const words = size / Math.min(align, 8);
    const body = size === 0 ? '{ }' : `{ ${word} opaque[${words}]; }`;
    const attribute = align > 8 ? ` __attribute__((aligned(${align})))` : '';
    out.push(
      /^(struct|union) /u.test(type) ? `${type} ${body}${attribute};` : `typedef struct ${body} ${type};`,
    );
    return { size, align };
  }

  function emitStruct(name: string, fact: FactStruct): CType {
    const lines: string[] = [];
    let end = 0;
    let align = 1;
    for (const field of fact.fields) {
      const pointed = baseType(field.type).replaceAll('*', '').trim();
      if (isPointer(field.type) && factOf(pointed)?.[1].kind.startsWith('typedef')) need(pointed);
      const element = isPointer(field.type) ? { size: 8, align: 8 } : need(baseType(field.type));
      const natural = roundUp(end, element.align);
      if (field.offset > natural) lines.push(`\tunsigned char __pad_${end}[${field.offset - end}];`);
      lines.push(`\t${declare(field)};`);
      end = field.offset + field.size;
      align = Math.max(align, element.align);
    }
    // A tail that no member explains is alignment of the whole (cache-line aligned per-CPU data).
    let attribute = '';
    if (roundUp(end, align) !== fact.size) {
      align = fact.size & -fact.size;
      attribute = ` __attribute__((aligned(${align})))`;
    }
    const typedef = fact.kind.startsWith('typedef');
    out.push(
      typedef ? 'typedef struct {' : `struct ${name} {`,
      ...lines,
      `}${typedef ? ` ${name}` : ''}${attribute};`,
    );
    return { size: fact.size, align };
  }

  for (const [name, fact] of Object.entries(structs)) {
    const type = fact.kind.startsWith('typedef') ? name : `struct ${name}`;
    need(type);
    out.push(`_Static_assert(sizeof(${type}) == ${fact.size}, "${name}");`);
    for (const field of fact.fields) {
      if (field.bit_size !== undefined) continue;
      out.push(
        `_Static_assert(__builtin_offsetof(${type}, ${field.name}) == ${field.offset} && ` +
          `sizeof(((${type} *)0)->${field.name}) == ${field.size}, "${name}.${field.name}");`,
      );
    }
  }
  return `${out.join('\n')}\n`;
}

export function offsetsHeader(facts: VariantFacts): string {
  const lines = ['#pragma once'];
  for (const [name, fact] of Object.entries(facts.structs))
    for (const field of fact.fields) lines.push(`#define ${name}_${field.name}_OFFSET ${field.offset}`);
  return `${lines.join('\n')}\n`;
}

export function autoconfHeader(config: KernelConfig): string {
  const lines = ['#pragma once'];
  for (const [name, value] of Object.entries(config)) {
    if (value === 'n') continue;
    if (value === 'y') lines.push(`#define ${name} 1`);
    else lines.push(`#define ${name} ${/^(0x)?[0-9a-f]+$/iu.test(value) ? value : JSON.stringify(value)}`);
  }
  return `${lines.join('\n')}\n`;
}

if (import.meta.main) {
  const [factsFile, configFile, folder] = process.argv.slice(2);
  if (factsFile === undefined || configFile === undefined || folder === undefined)
    throw new Error('usage: node structs.ts FACTS.json CONFIG OUTPUT_FOLDER');
  const facts = JSON.parse(readFileSync(factsFile, 'utf8')) as VariantFacts;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'autoconf.h'), autoconfHeader(readConfig(configFile)));
  writeFileSync(join(folder, 'layout.h'), layoutHeader(facts));
  writeFileSync(join(folder, 'offsets.h'), offsetsHeader(facts));
}
