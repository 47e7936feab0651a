import { readFileSync, writeFileSync } from 'node:fs';

const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages';
const MIB_EACH = 2;

/** More huge pages for a test; given back at its end. */
export class HugePages implements Disposable {
  readonly #before: number;

  private constructor(before: number) {
    this.#before = before;
  }

  /** @returns undefined, with the reason on the console, where the host does not have so many */
  static take(mib: number): HugePages | undefined {
    try {
      const pages = new HugePages(Number(readFileSync(POOL, 'latin1')));
      const wanted = pages.#before + mib / MIB_EACH;
      writeFileSync(POOL, String(wanted));
      const got = Number(readFileSync(POOL, 'latin1'));
      if (got >= wanted) return pages;
      pages[Symbol.dispose]();
      console.log(`# no huge pages: the host gives ${got - pages.#before} of ${wanted - pages.#before}`);
    } catch (error) {
      console.log(`# no huge pages: ${(error as Error).message}`);
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    writeFileSync(POOL, String(this.#before));
  }
}
