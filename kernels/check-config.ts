import type { KernelLayout, StructureMember } from '../extractor/contract.ts';
import { type ConfigCondition, holds, isSet, type KernelConfig, quote } from './config.ts';
import { type ConfigRule, configRules } from './config-rules.ts';

/** What the configuration says about one member or structure, and what a layout says about it. */
export interface ConfigFact {
  /** `structure.member`, or a structure's name if its size is the subject. */
  subject: string;
  /** What the configuration requires, for people. */
  expected: string;
  /** What the layout has, for people. */
  found: string;
  agrees: boolean;
  /** The lines of the configuration that decide. */
  options: string;
  rule: ConfigRule;
}

/**
 * Compares a layout with its kernel's configuration. Structures that the layout lacks are skipped.
 * @returns one fact for each rule and member that the layout allows to check
 */
export function checkConfig(
  layout: Pick<KernelLayout, 'structs'>,
  config: KernelConfig,
  rules: readonly ConfigRule[] = configRules,
): ConfigFact[] {
  return rules
    .filter((rule) => rule.where.every((probe) => find(layout, probe) !== null))
    .flatMap((rule) =>
      rule.members
        .filter((subject) => Object.hasOwn(layout.structs, subject.split('.')[0]!))
        .map((subject) => evaluate(layout, config, rule, subject))
        .filter((fact) => fact !== null),
    );
}

/** Offset (0 for a whole structure) and size in bytes of `structure`, `structure.member` or deeper; or null. */
export function find(
  layout: Pick<KernelLayout, 'structs'>,
  subject: string,
): { offset: number; size: number } | null {
  const [name, ...path] = subject.split('.');
  if (!Object.hasOwn(layout.structs, name!)) return null;
  const structure = layout.structs[name!]!;
  let found: { offset: number; size: number; members?: StructureMember[] } = { offset: 0, ...structure };
  for (const part of path) {
    const member = named(found.members ?? [], part);
    if (!member) return null;
    found = member;
  }
  return found;
}

function named(members: readonly StructureMember[], name: string): StructureMember | null {
  for (const member of members) {
    if (member.name === name) return member;
    const inside = member.name === null ? named(member.members ?? [], name) : null;
    if (inside) return inside;
  }
  return null;
}

/** Null if the rule does not apply. */
function evaluate(
  layout: Pick<KernelLayout, 'structs'>,
  config: KernelConfig,
  rule: ConfigRule,
  subject: string,
): ConfigFact | null {
  const member = find(layout, subject);
  const fact = (agrees: boolean, expected: string, condition: ConfigCondition): ConfigFact => ({
    subject,
    expected,
    found: describe(member),
    agrees,
    options: quote(config, condition),
    rule,
  });
  if (rule.effect === 'present') {
    const wanted = holds(config, rule.when);
    return fact((member !== null) === wanted, wanted ? 'there' : 'not there', rule.when);
  }
  // A missing member is reported by the presence rules.
  if (!member) return null;
  switch (rule.effect) {
    case 'size': {
      const matching = rule.cases.find(([when]) => holds(config, when));
      if (!matching) return null;
      const [when, bytes] = matching;
      return fact(member.size === bytes, `${bytes} bytes`, when);
    }
    case 'bitmap': {
      const value = isSet(config, rule.option) ? Number(config[rule.option]) : rule.exponent ? 0 : 1;
      const bytes = Math.ceil((rule.exponent ? 2 ** value : value) / 64) * 8;
      return fact(member.size === bytes, `${bytes} bytes`, rule.option);
    }
    case 'aligned': {
      if (!holds(config, rule.when) || !isSet(config, rule.option)) return null;
      const unit = 2 ** Number(config[rule.option]);
      const isStructure = !subject.includes('.');
      const value = isStructure ? member.size : member.offset;
      return fact(
        value % unit === 0,
        `${isStructure ? 'size' : 'offset'} a multiple of ${unit}`,
        `${rule.when} && ${rule.option}`,
      );
    }
  }
}

function describe(member: { offset: number; size: number } | null): string {
  return member ? `offset ${member.offset}, ${member.size} bytes` : 'not there';
}
