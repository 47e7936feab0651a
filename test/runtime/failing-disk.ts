import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

type Work = (...args: never[]) => unknown;

/** What takes room on a disk, or changes it. Reading goes on. */
const SYNC = ['mkdirSync', 'openSync', 'writeFileSync', 'fsyncSync', 'renameSync'] as const;
const ASYNC = ['mkdir', 'open', 'rename'] as const;
const OF_HANDLE = ['writeFile', 'sync'] as const;

/** A disk that takes so many calls and no more, in all of this process: at its end it takes everything again. */
export class FailingDisk implements Disposable {
  /** Calls so far. */
  calls = 0;
  readonly #code: string;
  readonly #takes: number;
  readonly #before: (() => void)[] = [];

  constructor(code: string, takes: number) {
    this.#code = code;
    this.#takes = takes;
    for (const name of SYNC) this.#replace(fs, name);
    for (const name of ASYNC) this.#replace(fs.promises, name);
    syncBuiltinESMExports();
  }

  get hasFailed(): boolean {
    return this.calls > this.#takes;
  }

  #replace(owner: object, name: string): void {
    const functions = owner as Record<string, Work>;
    const work = functions[name]!;
    const owned = Object.hasOwn(owner, name);
    const disk = this;
    functions[name] = function (this: unknown, ...args: never[]) {
      // A folder that is there is not made again.
      const isThere = name.startsWith('mkdir') && fs.existsSync(args[0] as unknown as string);
      const isRead = name.startsWith('open') && (args[1] === 'r' || args[1] === fs.constants.O_RDONLY);
      if (!isRead && !isThere && ++disk.calls > disk.#takes) {
        const error = Object.assign(new Error(`${disk.#code}: ${name}`), { code: disk.#code });
        if (name.endsWith('Sync')) throw error;
        return Promise.reject(error);
      }
      const result = work.apply(this, args);
      return name === 'open' ? (result as Promise<object>).then((handle) => disk.#watch(handle)) : result;
    };
    this.#before.push(() => {
      if (owned) functions[name] = work;
      else delete functions[name];
    });
  }

  #watch(handle: object): object {
    for (const name of OF_HANDLE) this.#replace(handle, name);
    return handle;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#before) undo();
    syncBuiltinESMExports();
  }
}
