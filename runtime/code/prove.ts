import { DomschedError } from '../error.ts';
import { requiredField } from '../layout/members.ts';
import type { SymbolName } from '../members/symbols.ts';
import { CONSTANTS } from './constants.ts';
import { type Code, decode } from './decode.ts';
import { Inquiry, type KernelText } from './inquiry.ts';
import { O1_CONSTANTS } from './o1-constants.ts';
import { type WayOut, wayOut } from './way-out.ts';
import type { ConstantRow, Surroundings, Witness } from './witness.ts';

export type ConstantName = (typeof CONSTANTS | typeof O1_CONSTANTS)[number]['name'];

/** Most bytes of a function that are read: `get_signal()` has 4 KiB. */
const MAX_FUNCTION = 8_192;

/** Most bytes of a function that is read together with one that calls it, and most of these functions. */
const MAX_HELPER = 256;
const MAX_HELPERS = 16;

/** A constant of one kernel: its value and what proved it, or why it has none. */
export type Proof =
  | { readonly name: ConstantName; readonly value: bigint; readonly functions: readonly string[] }
  | { readonly name: ConstantName; readonly value: null; readonly why: string };

/** The constants of one kernel, each read from its own code. */
export class Constants {
  readonly proofs: readonly Proof[];
  /** How its stacks look on the way to user mode, or a clause that says why this is unknown. */
  readonly wayOut: WayOut | string;
  readonly #release: string;

  constructor(proofs: readonly Proof[], release: string, wayOut: WayOut | string = 'its code was not read') {
    this.proofs = proofs;
    this.wayOut = wayOut;
    this.#release = release;
  }

  /** Why one of these has no value; null when all have one. */
  missing(names: readonly ConstantName[]): string | null {
    for (const proof of this.proofs) if (proof.value === null && names.includes(proof.name)) return proof.why;
    return null;
  }

  /**
   * @param done what cannot be done without it
   * @throws DomschedError `refused`, naming the constant and the function that should have shown it
   */
  get(name: ConstantName, done = 'held'): bigint {
    const proof = this.proofs.find((candidate) => candidate.name === name);
    if (proof !== undefined && proof.value !== null) return proof.value;
    throw new DomschedError(
      'refused',
      `${this.#release}: ${proof?.why ?? `${name} is not proved`}; processes of this guest can be listed, but not ${done}; nothing was changed`,
      { release: this.#release, constant: name },
    );
  }
}

/** Reads all constants out of a kernel's code. One that cannot be proved gets a reason instead of a value. */
export function proveConstants(text: KernelText): Constants {
  return proveBy(new Inquiry(text));
}

/** As {@link proveConstants}. All that the proof depends on is asked of `inquiry`. */
export function proveBy(inquiry: Inquiry): Constants {
  const { layout } = inquiry;
  const symbol = (name: SymbolName) => inquiry.symbol(name);
  const endless = new Set(
    (['__stack_chk_fail', 'do_group_exit'] as const).flatMap((name) => symbol(name) ?? []),
  );
  const words = (address: bigint, count: number) => {
    const bytes = Uint8Array.from(inquiry.readData(address, 8 * count));
    return [...new BigUint64Array(bytes.buffer, 0, Math.floor(bytes.length / 8))];
  };
  const decoded = (entry: bigint, length: number) =>
    decode(inquiry.read(entry, length), entry, endless, words);
  const codes = new Map<string, Code | null>();
  const codeOf: CodeOf = (name, helpers = false) => {
    const key = helpers ? `${name} and helpers` : name;
    const known = codes.get(key);
    if (known !== undefined) return known;
    const entry = symbol(name);
    const alone = entry === undefined || helpers ? null : decoded(entry, MAX_FUNCTION);
    const code = helpers ? withHelpers(codeOf(name), (address) => decoded(address, MAX_HELPER)) : alone;
    codes.set(key, code);
    return code;
  };
  const proofs: Proof[] = [];
  const kernel: Surroundings = {
    place: (struct, member) => inquiry.place(struct, member) ?? requiredField(layout, struct, member),
    addressIfAny: symbol,
    address: (name) => {
      const found = symbol(name);
      if (found !== undefined) return found;
      throw new DomschedError('refused', `the layout has no symbol ${name}: extract it again, with symbols`);
    },
    preemptCount: preemptCount(inquiry),
    value: (name) => {
      const proof = proofs.find((candidate) => candidate.name === name);
      if (proof !== undefined && proof.value !== null) return proof.value;
      throw new DomschedError('refused', proof?.why ?? `${name} is not proved`);
    },
  };
  for (const row of inquiry.isO1 ? O1_CONSTANTS : CONSTANTS) {
    const { onlyWith } = row as ConstantRow;
    const { symbol: used, member } = onlyWith ?? {};
    if (used && member && symbol(used) === undefined && inquiry.place('task_struct', member) === undefined) {
      proofs.push({ name: row.name, value: 0n, functions: [] });
      continue;
    }
    try {
      proofs.push(proveRow(row, row.name, codeOf, kernel));
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      proofs.push({ name: row.name, value: null, why: `${row.name} is not proved: ${error.message}` });
    }
  }
  const sp = inquiry.place('task_struct', 'sp');
  const way =
    sp === undefined ? 'its layout has no task_struct.thread.sp' : wayOut({ codeOf, address: symbol }, sp);
  return new Constants(proofs, layout.kernel.release, way);
}

/** A function's code, alone or with that of the small functions that it calls; null if the layout does not have it. */
type CodeOf = (name: SymbolName, helpers?: boolean) => Code | null;

function withHelpers(code: Code | null, decoded: (address: bigint) => Code): Code | null {
  if (code === null) return null;
  const called = new Set(
    [...code.values()].flatMap(({ flow, target }) => (flow === 'call' ? (target ?? []) : [])),
  );
  const helpers = [...called].slice(0, MAX_HELPERS).flatMap((address) => [...decoded(address)]);
  return new Map([...code, ...helpers].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function proveRow(row: ConstantRow, name: ConstantName, codeOf: CodeOf, kernel: Surroundings): Proof {
  const no = (why: string): Proof => ({
    name,
    value: null,
    why: `${name} is not proved on this kernel: ${why}`,
  });
  const functions = new Set<string>();
  let value: bigint | null = row.chosen ?? null;
  // Witnesses that give the value itself go first, whatever the order of the rows.
  for (const witness of [...row.witnesses].sort(
    (a, b) => Number(b.says === 'is') - Number(a.says === 'is'),
  )) {
    const found = testimony(witness, codeOf, kernel);
    if (found === null) {
      if (witness.optional) continue;
      return no(`the layout has no symbol ${witness.functions.join(' or ')}: extract it again, with symbols`);
    }
    const { values, from } = found;
    if (values.length === 0 && witness.optional) continue;
    const seen = values.length === 0 ? 'nothing' : values.map((each) => `0x${each.toString(16)}`).join(', ');
    const against = `${from}() ${witness.how}, and that is ${seen}`;
    if (witness.says === 'is') {
      if (values.length !== 1) return no(against);
      const [only] = values;
      if (row.kind === 'bit' && (only! & (only! - 1n)) !== 0n) return no(against);
      if (only === 0n || (value !== null && value !== only)) return no(against);
      value = only!;
    } else if (value === null || values.length === 0 || !agrees(witness.says, value, values))
      return no(against);
    functions.add(from);
  }
  return value === null
    ? no('no function of this kernel has it')
    : { name, value, functions: [...functions] };
}

function testimony(
  { functions, read, helpers }: Witness,
  codeOf: CodeOf,
  kernel: Surroundings,
): { values: readonly bigint[]; from: string } | null {
  for (const from of functions) {
    const code = codeOf(from);
    if (code === null) continue;
    const values = read(code, kernel);
    const all = values.length === 0 && helpers ? read(codeOf(from, true)!, kernel) : values;
    return { values: [...new Set(all)], from };
  }
  return null;
}

function agrees(says: 'among' | 'within' | 'not', value: bigint, values: readonly bigint[]): boolean {
  if (says === 'among') return values.includes(value);
  if (says === 'within') return values.some((mask) => (mask & value) === value);
  return values.every((other) => (other & value) === 0n);
}

function preemptCount(inquiry: Inquiry): bigint {
  const hot = inquiry.place('pcpu_hot', 'preempt_count');
  const linked = inquiry.linked(hot ? 'pcpu_hot' : '__preempt_count');
  if (linked === undefined) return -1n;
  const offset = BigInt(hot?.offset ?? 0);
  // Those linked inside the image (6.15) move with it.
  const moved = linked >= 1n << 32n ? linked + inquiry.slide : linked;
  return BigInt.asIntN(64, moved + offset);
}
