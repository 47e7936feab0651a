import { existsSync, realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ExtractError } from '../error.ts';
import { asBuffer, FileSource } from './byte-source.ts';
import { readElfImage } from './image.ts';
import type { Companion, Companions } from './kernel-file.ts';
import { buildIdOf, SectionSet } from './section-set.ts';

const MAX_LINK = 4096;

/** Opens the files that a file's debug information refers to, in the places where gdb looks for them. */
export class DebugCompanions implements Companions {
  readonly #path: string;
  readonly #sections: SectionSet;
  readonly #roots: readonly string[];
  readonly #stack: AsyncDisposableStack;

  /** @param path of the file with the debug information @param stack closes the opened files */
  constructor(path: string, sections: SectionSet, roots: readonly string[], stack: AsyncDisposableStack) {
    this.#path = path;
    this.#sections = sections;
    this.#roots = roots;
    this.#stack = stack;
  }

  alternate(): Companion | null {
    const link = readLink(this.#sections) ?? readSupplement(this.#sections);
    if (!link || link.isShared) return null;
    const { name, id } = link;
    const byId = join('.build-id', id.slice(0, 2), `${id.slice(2)}.debug`);
    const named = resolve(dirname(realpathSync(this.#path)), name);
    for (const candidate of [named, ...this.#roots.map((root) => join(root, byId))]) {
      const found = this.#open(candidate);
      if (found && sharedId(found) === id) return companion(candidate, found);
    }
    throw new ExtractError(
      'no-debug-information',
      `${this.#path} shares debug information with another file (dwz -m), and that is not at ${named} or is of another ` +
        `build: copy there the file with build-id ${id}`,
      { path: this.#path, alternate: named, buildId: id },
    );
  }

  split(name: string, directory: string): Companion {
    const folder = dirname(realpathSync(this.#path));
    // The build path, or, if moved together with the program, beside it.
    const built = resolve(folder, directory, name);
    for (const candidate of new Set([built, resolve(folder, name), join(folder, built.split('/').at(-1)!)])) {
      const found = this.#open(candidate);
      if (found?.has('.debug_info.dwo')) return companion(candidate, found);
    }
    throw new ExtractError(
      'no-debug-information',
      `${this.#path} has its debug information in files of their own (CONFIG_DEBUG_INFO_SPLIT, -gsplit-dwarf), and ` +
        `${built} is not there: copy it there or beside the file` +
        this.#packageNote(),
      { path: this.#path, split: built },
    );
  }

  /** `dwp` packs all .dwo files into one, indexed by number and not by name; no kernel build uses it. */
  #packageNote(): string {
    const packed = `${this.#path}.dwp`;
    return existsSync(packed) ? ` (${packed}, in which all of them may be, is a form that is not read)` : '';
  }

  #open(path: string): SectionSet | null {
    if (!existsSync(path)) return null;
    return new SectionSet([readElfImage(this.#stack.use(FileSource.open(path)))]);
  }
}

/** Location and identity (bytes in hex) of a file's shared debug information. */
interface Link {
  readonly name: string;
  readonly id: string;
  /** Whether this is the shared file itself. */
  readonly isShared: boolean;
}

/** The link that GNU tools make: a name and a build-id. */
function readLink(sections: SectionSet): Link | null {
  const bytes = linkBytes(sections, '.gnu_debugaltlink');
  const end = bytes?.indexOf(0) ?? -1;
  if (!bytes || end <= 0) return null;
  return { name: bytes.toString('utf8', 0, end), id: bytes.toString('hex', end + 1), isShared: false };
}

/** DWARF 5, section 7.3.6: version, whether this is the shared file, name, length of the checksum, checksum. */
function readSupplement(sections: SectionSet): Link | null {
  const bytes = linkBytes(sections, '.debug_sup');
  if (!bytes || bytes.length < 5 || bytes.readUInt16LE(0) !== 5) return null;
  const end = bytes.indexOf(0, 3);
  const length = bytes[end + 1] ?? 0;
  // A length of 128 or more would take another byte, but no checksum is that long.
  if (end < 0 || length === 0 || length > 127 || end + 2 + length > bytes.length) return null;
  return {
    name: bytes.toString('utf8', 3, end),
    id: bytes.toString('hex', end + 2, end + 2 + length),
    isShared: bytes[2] === 1,
  };
}

/** Identity of a shared file; null if it is none. */
function sharedId(sections: SectionSet): string | null {
  const own = readSupplement(sections);
  if (own) return own.isShared ? own.id : null;
  return buildIdOf(sections);
}

function linkBytes(sections: SectionSet, name: string): Buffer | null {
  const section = sections.get(name);
  return section && section.size > 0 && section.size <= MAX_LINK ? asBuffer(section.read()) : null;
}

function companion(path: string, sections: SectionSet): Companion {
  return { path, section: (name) => sections.get(name) };
}
