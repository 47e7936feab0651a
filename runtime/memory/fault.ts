import { DomschedError } from '../error.ts';
import { formatAddress, type GuestVirtual } from './address.ts';

/** Why an address has no translation. */
export type FaultReason =
  /** Its upper bits are not copies of the highest translated one. */
  | 'non-canonical'
  | 'not-present'
  /** A bit is set that must be clear, or a large page is not aligned. */
  | 'reserved-bit'
  /** The frame of the table is not RAM. */
  | 'table-unmapped'
  /** Translated, but the frame is not RAM of the guest. */
  | 'frame-unmapped';

/** The facts of a failed translation. */
export interface FaultFacts {
  readonly address: GuestVirtual;
  /** Physical address of the topmost table. */
  readonly root: number;
  readonly reason: FaultReason;
  /** Level of the table with the bad entry: 5 or 4 is the top, 1 the last; 0 if the address or its frame is bad. */
  readonly level: number;
  /** Physical address of the bad entry; undefined for `non-canonical`. */
  readonly entryAddress: number | undefined;
  /** The bad entry. */
  readonly entry: bigint | undefined;
}

/** The error `translation-fault` for an address that the guest's tables do not map; `details` has all facts. */
export class TranslationFault extends DomschedError {
  override readonly name = 'TranslationFault';
  readonly facts: FaultFacts;

  constructor(facts: FaultFacts, domain: string) {
    super('translation-fault', describeFault(facts, domain), { domain, ...facts });
    this.facts = facts;
  }
}

/** One line that tells which entry of which table ended the walk. */
export function describeFault(facts: FaultFacts, domain: string): string {
  const where = `${domain}: ${formatAddress(facts.address)}`;
  if (facts.reason === 'non-canonical') return `${where} is no address of this guest (not canonical)`;
  const root = `tables at ${facts.root.toString(16)}`;
  if (facts.reason === 'frame-unmapped') return `${where} is mapped (${root}) to a frame that is not RAM`;
  const entry = facts.entry === undefined ? '' : ` ${formatAddress(facts.entry)}`;
  const at = facts.entryAddress === undefined ? '' : ` at ${facts.entryAddress.toString(16)}`;
  return `${where}: ${facts.reason}, level ${facts.level} entry${entry}${at}, ${root}`;
}
