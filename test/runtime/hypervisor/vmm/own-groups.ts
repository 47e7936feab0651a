import { accessSync, constants, existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where a group with a freezer can be made on this machine, by the version of the hierarchy. */
const PLACES = [
  { version: 1, directory: '/sys/fs/cgroup/freezer', file: 'cgroup.procs' },
  { version: 2, directory: '/sys/fs/cgroup/unified', file: 'cgroup.procs' },
  { version: 2, directory: '/sys/fs/cgroup', file: 'cgroup.controllers' },
] as const;

/** A control group with a freezer, for processes of a test. */
export class TestGroup implements AsyncDisposable {
  readonly version: 1 | 2;
  readonly directory: string;
  readonly #top: string;
  readonly #moved: number[] = [];

  constructor({ version, directory }: (typeof PLACES)[number], name: string) {
    this.version = version;
    this.#top = directory;
    this.directory = path.join(directory, `domsched-test-${process.pid}-${name}`);
    mkdirSync(this.directory);
  }

  add(pid: number): void {
    writeFileSync(path.join(this.directory, 'cgroup.procs'), String(pid));
    this.#moved.push(pid);
  }

  set(frozen: boolean): void {
    const [file, word] =
      this.version === 1
        ? ['freezer.state', frozen ? 'FROZEN' : 'THAWED']
        : ['cgroup.freeze', frozen ? '1' : '0'];
    writeFileSync(path.join(this.directory, file), word);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!existsSync(this.directory)) return;
    this.set(false);
    for (const pid of this.#moved) {
      if (existsSync(`/proc/${pid}`)) writeFileSync(path.join(this.#top, 'cgroup.procs'), String(pid));
    }
    for (let attempt = 0; existsSync(this.directory) && attempt < 100; attempt++) {
      try {
        rmdirSync(this.directory);
      } catch {
        await sleep(20);
      }
    }
  }
}

/** One group in each hierarchy that has a freezer here: root can make one on every machine of ours. */
export function testGroups(name: string): TestGroup[] {
  const groups: TestGroup[] = [];
  for (const place of PLACES) {
    try {
      accessSync(path.join(place.directory, place.file), constants.R_OK);
      groups.push(new TestGroup(place, name));
    } catch {
      // Not mounted here, or read only.
    }
  }
  return groups;
}
