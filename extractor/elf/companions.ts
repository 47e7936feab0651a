import { existsSync, realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ExtractError } from '../error.ts';
import { asBuffer, FileSource } from './byte-source.ts';
import { readElfImage } from './image.ts';
import type { Companion, Companions } from './kernel-file.ts';
import { buildIdOf, SectionSet } from './section-set.ts';

const MAX_LINK = 4096;

/** Opens the files that a file's debug information refers to, at the places where gdb looks for them. */
export class DebugCompanions implements Companions {
  readonly #path: string;
  readonly #sections: SectionSet;
  readonly #roots: readonly string[];
  readonly #stack: AsyncDisposableStack;

  /** @param path of the file with the debug information @param stack closes what is opened */
  constructor(path: string, sections: SectionSet, roots: readonly string[], stack: AsyncDisposableStack) {
    this.#path = path;
    this.#sections = sections;
    this.#roots = roots;
    this.#stack = stack;
  }

  alternate(): Companion | null {
    const link = this.#sections.get('.gnu_debugaltlink');
    if (!link || link.size === 0 || link.size > MAX_LINK) return null;
    const bytes = asBuffer(link.read());
    const end = bytes.indexOf(0);
    if (end <= 0) return null;
    const name = bytes.toString('utf8', 0, end);
    const buildId = bytes.toString('hex', end + 1);
    const byId = join('.build-id', buildId.slice(0, 2), `${buildId.slice(2)}.debug`);
    const named = resolve(dirname(realpathSync(this.#path)), name);
    for (const candidate of [named, ...this.#roots.map((root) => join(root, byId))]) {
      const found = this.#open(candidate);
      if (found && buildIdOf(found) === buildId) return companion(candidate, found);
    }
    throw new ExtractError(
      'no-debug-information',
      `${this.#path} shares debug information with another file (dwz -m), and that is not at ${named} or is of another ` +
        `build: copy there the file with build-id ${buildId}`,
      { path: this.#path, alternate: named, buildId },
    );
  }

  split(name: string, directory: string): Companion {
    const folder = dirname(realpathSync(this.#path));
    // Where it was built; or, moved together with the program, beside it.
    const built = resolve(folder, directory, name);
    for (const candidate of new Set([built, resolve(folder, name), join(folder, built.split('/').at(-1)!)])) {
      const found = this.#open(candidate);
      if (found?.has('.debug_info.dwo')) return companion(candidate, found);
    }
    throw new ExtractError(
      'no-debug-information',
      `${this.#path} has its debug information in files of their own (CONFIG_DEBUG_INFO_SPLIT, -gsplit-dwarf), and ` +
        `${built} is not there: copy it there or beside the file` +
        (existsSync(`${this.#path}.dwp`) ? ' (its package, .dwp, is not read)' : ''),
      { path: this.#path, split: built },
    );
  }

  #open(path: string): SectionSet | null {
    if (!existsSync(path)) return null;
    return new SectionSet([readElfImage(this.#stack.use(FileSource.open(path)))]);
  }
}

function companion(path: string, sections: SectionSet): Companion {
  return { path, section: (name) => sections.get(name) };
}
