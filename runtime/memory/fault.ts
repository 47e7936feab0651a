import { DomschedError } from '../error.ts';
import { formatAddress } from './address.ts';
import type { FaultFacts } from './types.ts';

/** The `translation-fault` of an address that the guest's tables do not map, with all the facts in `details`. */
export class TranslationFault extends DomschedError {
  override readonly name = 'TranslationFault';
  readonly facts: FaultFacts;

  constructor(facts: FaultFacts, domain: string) {
    super('translation-fault', describeFault(facts, domain), { domain, ...facts });
    this.facts = facts;
  }
}

/** One line that says which entry of which table ends the walk. */
export function describeFault(facts: FaultFacts, domain: string): string {
  const where = `${domain}: ${formatAddress(facts.address)}`;
  if (facts.reason === 'non-canonical') return `${where} is no address of this guest (not canonical)`;
  const root = `tables at ${facts.root.toString(16)}`;
  if (facts.reason === 'frame-unmapped') return `${where} is mapped (${root}) to a frame that is not RAM`;
  const entry = facts.entry === undefined ? '' : ` ${formatAddress(facts.entry)}`;
  const at = facts.entryAddress === undefined ? '' : ` at ${facts.entryAddress.toString(16)}`;
  return `${where}: ${facts.reason}, level ${facts.level} entry${entry}${at}, ${root}`;
}
