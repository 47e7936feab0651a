import { createHash } from 'node:crypto';
import { hasO1Queues, optionalField } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import type { MemberName, StructName } from '../members/members.ts';
import type { SymbolName } from '../members/symbols.ts';
import type { MemberPlace } from './patterns.ts';

/** A kernel's text, in a file or in the memory of a guest. */
export interface KernelText {
  readonly layout: LayoutView;
  /** Distance from where the kernel was linked to where it is. */
  readonly slide: bigint;
  /** Reads `length` bytes from an address, or fewer where the text ends. */
  read(address: bigint, length: number): Uint8Array;
  /** The same of the data that code refers to. */
  readData(address: bigint, length: number): Uint8Array;
}

/** Something that a proof asked of a kernel. Addresses are those for which the kernel was linked, in hex. */
export type Question =
  | readonly ['symbol', SymbolName]
  | readonly ['member', StructName, string]
  | readonly ['text' | 'data', address: string, length: number];

/**
 * Answers a proof's questions about a kernel, and keeps them. A proof follows from the answers alone, so it is also that
 * of any other kernel that gives the same ones.
 */
export class Inquiry {
  readonly slide: bigint;
  /** Whether it has O(1) queues. */
  readonly isO1: boolean;
  readonly questions: Question[] = [];
  readonly #text: KernelText;
  readonly #asked = new Set<string>();
  readonly #answers = createHash('sha256');

  constructor(text: KernelText) {
    this.#text = text;
    this.slide = text.slide;
    this.isO1 = hasO1Queues(text.layout);
  }

  get layout(): LayoutView {
    return this.#text.layout;
  }

  /** Address of a symbol where the kernel is now. */
  symbol(name: SymbolName): bigint | undefined {
    const linked = this.linked(name);
    return linked === undefined ? undefined : linked + this.slide;
  }

  /** Address for which it was linked; for a per-CPU variable, its offset. */
  linked(name: SymbolName): bigint | undefined {
    const address = this.layout.symbol(name);
    this.#note(['symbol', name], `${address}`);
    return address;
  }

  place<S extends StructName>(struct: S, member: MemberName<S>): MemberPlace | undefined {
    const field = optionalField(this.layout, struct, member);
    this.#note(['member', struct, member], `${field?.offset} ${field?.size}`);
    return field && { offset: field.offset, size: field.size };
  }

  read(address: bigint, length: number): Uint8Array {
    const bytes = this.#text.read(address, length);
    this.#note(['text', `0x${(address - this.slide).toString(16)}`, length], bytes);
    return bytes;
  }

  readData(address: bigint, length: number): Uint8Array {
    const bytes = this.#text.readData(address, length);
    this.#note(['data', `0x${(address - this.slide).toString(16)}`, length], bytes);
    return bytes;
  }

  /** SHA-256 of all questions with their answers. */
  digest(): string {
    return this.#answers.copy().digest('hex');
  }

  #note(question: Question, answer: string | Uint8Array): void {
    const text = JSON.stringify(question);
    // Memory may have changed since; a layout does not.
    if (question[0] !== 'text' && question[0] !== 'data' && this.#asked.has(text)) return;
    this.#asked.add(text);
    this.questions.push(question);
    this.#answers.update(`${text} ${answer.length}\n`).update(answer);
  }
}

/** Asks a kernel the same questions again. @returns the digest of its answers @throws TypeError for what is no question */
export function answersTo(questions: readonly Question[], text: KernelText): string {
  const inquiry = new Inquiry(text);
  for (const question of questions) {
    if (question[0] === 'symbol') inquiry.linked(question[1]);
    else if (question[0] === 'member') inquiry.place(question[1], question[2] as MemberName<StructName>);
    else if (question[0] === 'text') inquiry.read(BigInt(question[1]) + text.slide, question[2]);
    else if (question[0] === 'data') inquiry.readData(BigInt(question[1]) + text.slide, question[2]);
    else throw new TypeError('no question');
  }
  return inquiry.digest();
}
