import { readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import {
  canonicalName,
  type KernelLayout,
  type Structure,
  type StructureMember,
} from '../extractor/contract.ts';
import { projectDirectory } from './paths.ts';

const FieldSchema = z.object({
  name: z.string(),
  offset: z.int(),
  size: z.int(),
  type: z.string(),
  bit_offset: z.int().optional(),
  bit_size: z.int().optional(),
});

const FactsSchema = z.object({
  kernel: z.string(),
  variant: z.string(),
  measuredWith: z.string(),
  config: z.record(z.string(), z.string()),
  structs: z.record(
    z.string(),
    z.object({
      size: z.int(),
      kind: z.enum(['struct', 'union', 'typedef->struct']),
      fields: z.array(FieldSchema),
    }),
  ),
});

/** Layouts that other tools measured on a real kernel; `kernels/facts/README.md` explains how. */
export type MeasuredFacts = z.infer<typeof FactsSchema>;

/** Measurements of Linux 2.6.16 in one configuration: `base`, `preempt`, `schedstats` or `up`. */
export function readFacts(variant: string): MeasuredFacts {
  const file = path.join(projectDirectory, 'kernels', 'facts', `linux-2.6.16-x86_64-${variant}.json`);
  return FactsSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
}

/** The measurements in the contract's form: canonical structure names, offsets and sizes; kinds were not measured. */
export function structsOf(facts: MeasuredFacts): Record<string, Structure> {
  return Object.fromEntries(
    Object.entries(facts.structs).map(([sourceName, { size, kind: spelled, fields }]) => {
      // The spelling for a structure that has only a typedef's name.
      const kind = spelled === 'typedef->struct' ? 'struct' : spelled;
      const members = fields.map(
        (field): StructureMember => ({
          name: field.name,
          offset: field.offset,
          size: field.size,
          type: field.type,
          kind: 'opaque',
          ...(field.bit_size === undefined
            ? {}
            : { bitOffset: field.bit_offset ?? 0, bitSize: field.bit_size }),
        }),
      );
      const name = canonicalName(sourceName);
      return [name, { name, sourceName, kind, size, members }];
    }),
  );
}

/** A member or structure size on which two sources disagree. */
export interface FactDisagreement {
  /** `structure` or `structure.member`. */
  subject: string;
  /** For people; `not there` if a source lacks it. */
  left: string;
  right: string;
}

/**
 * Compares the structures that two layouts share, member by member: offset, size and bits. Type names may differ
 * between sources and are ignored, and so is which structures there are.
 */
export function compareStructs(
  left: KernelLayout['structs'],
  right: KernelLayout['structs'],
): FactDisagreement[] {
  return Object.keys(left)
    .filter((name) => Object.hasOwn(right, name))
    .flatMap((name) => {
      const a = places(left[name]!);
      const b = places(right[name]!);
      return [...new Set([...a.keys(), ...b.keys()])]
        .filter((subject) => a.get(subject) !== b.get(subject))
        .map((subject) => ({
          subject,
          left: a.get(subject) ?? 'not there',
          right: b.get(subject) ?? 'not there',
        }));
    });
}

/** Position of every member that C reaches by one name, as text. */
function places(structure: Structure): Map<string, string> {
  const found = new Map([[structure.name, `${structure.kind} of ${structure.size} bytes`]]);
  const visit = (members: readonly StructureMember[]): void => {
    for (const member of members) {
      if (member.name === null) {
        visit(member.members ?? []);
        continue;
      }
      const bits =
        member.bitSize === undefined ? '' : `, ${member.bitSize} bits from bit ${member.bitOffset ?? 0}`;
      found.set(`${structure.name}.${member.name}`, `offset ${member.offset}, ${member.size} bytes${bits}`);
    }
  };
  visit(structure.members);
  return found;
}
