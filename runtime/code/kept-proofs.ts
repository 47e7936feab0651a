import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../cache-directory.ts';
import { PrivateCache } from '../private-cache.ts';
import type { Returns } from './frames.ts';
import { answersTo, Inquiry, type KernelText, type Question } from './inquiry.ts';
import { Constants, type Proof, proveBy } from './prove.ts';
import type { WayOut } from './way-out.ts';

const FORMAT = 'domsched-constants/1';
/** A host's guests have fewer kernels and places of them; an entry has some 5 KiB. */
const LIMITS = { entries: 256, bytes: 1 << 20 };

/** What is in a file. */
interface KeptEntry {
  readonly questions: readonly Question[];
  /** Of the kernel's answers and the constants below. */
  readonly digest: string;
  readonly constants: StoredConstants;
}

interface StoredConstants {
  readonly proofs: readonly (Omit<Proof, 'value'> & { readonly value: string | null })[];
  readonly wayOut: string | Readonly<Record<keyof WayOut, number | readonly (readonly [string, number])[]>>;
}

/**
 * Constants that were proved before, for whoever has the very same code at the same place: its bytes are read and hashed
 * again, but need not be decoded. The decoder's start and its work take a hundred times as long.
 *
 * A proof is a function of this program and of what it asks of the kernel: symbols, places of members, bytes of functions.
 * So an entry has all questions and a hash of their answers. It counts only for the same program ({@link program}), the
 * same layout's kernel and build-id, and the same slide, and if this guest gives the same answer to every question. One
 * byte that differs makes the proof be done anew.
 */
export class KeptProofs {
  readonly #cache: PrivateCache;

  constructor(directory = path.join(cacheDirectory(), 'constants')) {
    this.#cache = new PrivateCache(directory, LIMITS);
  }

  get directory(): string {
    return this.#cache.directory;
  }

  /** The constants that {@link proveBy} would prove now. */
  prove(text: KernelText, program = ourProgram()): Constants {
    const inquiry = new Inquiry(text);
    const { kernel } = text.layout;
    const key = [FORMAT, program, kernel, inquiry.isO1, `${text.slide}`];
    const name = sha256(JSON.stringify(key)).slice(0, 32);
    const before = program === null ? null : this.#find(name, text);
    if (before !== null) return before;
    const constants = proveBy(inquiry);
    if (program !== null) this.#keep(name, inquiry, constants);
    return constants;
  }

  #find(name: string, text: KernelText): Constants | null {
    const content = this.#cache.read(this.#cache.file(name));
    if (content === null) return null;
    try {
      const { questions, digest, constants } = JSON.parse(content) as KeptEntry;
      if (bound(answersTo(questions, text), constants) !== digest) return null;
      return restored(constants, text.layout.kernel.release);
    } catch {
      // A damaged entry: it asks what cannot be asked.
      return null;
    }
  }

  #keep(name: string, inquiry: Inquiry, { proofs, wayOut }: Constants): void {
    const constants: StoredConstants = {
      proofs: proofs.map((proof) => ({ ...proof, value: hex(proof.value) })),
      wayOut: typeof wayOut === 'string' ? wayOut : mapWay(wayOut),
    };
    const { questions } = inquiry;
    const entry: KeptEntry = { questions, digest: bound(inquiry.digest(), constants), constants };
    this.#cache.keep(name, JSON.stringify(entry), '');
  }
}

/** Binds the constants to the answers, so that a damaged file is noticed. */
function bound(answers: string, constants: StoredConstants): string {
  return sha256(`${answers} ${JSON.stringify(constants)}`);
}

function restored({ proofs, wayOut }: StoredConstants, release: string): Constants {
  const all = proofs.map((proof) => ({ ...proof, value: proof.value === null ? null : BigInt(proof.value) }));
  if (typeof wayOut === 'string') return new Constants(all as Proof[], release, wayOut);
  const way = Object.entries(wayOut).map(([name, value]) => [
    name,
    typeof value === 'number' ? value : new Map(value.map(([at, depth]) => [BigInt(at), depth])),
  ]);
  return new Constants(all as Proof[], release, Object.fromEntries(way) as WayOut);
}

function mapWay(way: WayOut): Exclude<StoredConstants['wayOut'], string> {
  const pairs = (returns: Returns) => [...returns].map(([at, depth]) => [hex(at)!, depth] as const);
  const { saved, switching, scheduling, leaving, last } = way;
  return {
    saved,
    switching: pairs(switching),
    scheduling: pairs(scheduling),
    leaving: pairs(leaving),
    last: pairs(last),
  };
}

function hex(value: bigint | null): string | null {
  return value === null ? null : `0x${value.toString(16)}`;
}

function sha256(text: string | Uint8Array): string {
  return createHash('sha256').update(text).digest('hex');
}

let known: string | null | undefined;

/**
 * Identifies all that a proof is made by: the files of this room, by their content, and the decoder's version.
 * @returns null if they cannot be read: then nothing is kept
 */
function ourProgram(): string | null {
  if (known !== undefined) return known;
  try {
    const room = fileURLToPath(new URL('.', import.meta.url));
    const ending = path.extname(fileURLToPath(import.meta.url));
    const files = readdirSync(room).filter(
      (name) => path.extname(name) === ending && !name.endsWith('.d.ts'),
    );
    const require = createRequire(import.meta.url);
    const { version } = require('iced-x86/package.json') as { version: string };
    known = sha256([version, ...files.sort().map((name) => sha256(readFileSync(room + name)))].join(' '));
  } catch {
    known = null;
  }
  return known;
}
