import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { until } from './until.ts';

const CGROUPS = '/sys/fs/cgroup';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Becomes a systemd that has its own process ids, mounts and control groups, and starts nothing but what it is told to.
 * What it and others write to /etc, /root, /run and /var/log is in memory. The program is where npm would put it.
 */
const BECOME = `
set -e
mount --make-rprivate /
for group in ${CGROUPS} ${CGROUPS}/*; do
  [ -e "$group/cgroup.procs" ] && [ ! -L "$group" ] || continue
  mkdir "$group/$1"
  echo 1 2>/dev/null > "$group/$1/cgroup.clone_children" || :
  if echo $$ 2>/dev/null > "$group/$1/cgroup.procs"; then mount --bind "$group/$1" "$group"; else rmdir "$group/$1"; fi
done
for place in /run /var/log /usr/local/bin; do mount -t tmpfs tmpfs $place; done
for place in /etc /root; do
  mkdir -p /run/upper$place /run/work$place
  mount -t overlay overlay -o lowerdir=$place,upperdir=/run/upper$place,workdir=/run/work$place $place
done
ln -s "$2" /usr/local/bin/node
printf '#!/bin/sh\\nexec node "%s" "$@"\\n' "$3" > /usr/local/bin/domsched
chmod 755 /usr/local/bin/domsched
rm -rf /etc/systemd/system
mkdir -p /etc/systemd/system /run/lock /run/units /run/none
for unit in basic multi-user shutdown sysinit; do cp /usr/lib/systemd/system/$unit.target /run/units; done
mount --bind /run/units /usr/lib/systemd/system
mount --bind /run/none /usr/lib/systemd/system-generators
container=unshare exec unshare --cgroup /usr/lib/systemd/systemd --system --show-status=no --unit=basic.target
`;

/** A real systemd beside the machine's own, for units. */
export class Systemd implements AsyncDisposable {
  readonly #outer: ChildProcess;
  readonly #group: string;
  /** Of its process 1, as we see it. */
  readonly pid: number;
  /** What goes before a command that runs in it. */
  readonly enter: readonly string[];

  private constructor(outer: ChildProcess, pid: number, group: string) {
    this.#outer = outer;
    this.pid = pid;
    this.#group = group;
    this.enter = ['nsenter', '--target', String(pid), '--pid', '--mount', '--cgroup', '--'];
  }

  static async start(): Promise<Systemd> {
    const group = `domsched-test-${process.pid}`;
    const node = path.join(projectDirectory, 'node_modules/.bin/node');
    const program = path.join(projectDirectory, 'dist/domsched.js');
    const inside = ['sh', '-c', BECOME, 'sh', group, node, program];
    const outer = spawn('unshare', ['-pfm', '--mount-proc', '--kill-child', ...inside], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH },
    });
    let complaint = '';
    outer.stderr!.on('data', (data) => {
      complaint += data;
    });
    const kill = () => outer.kill('SIGKILL');
    process.once('exit', kill);
    outer.once('exit', () => process.off('exit', kill));
    let systemd: Systemd | undefined;
    try {
      await until('systemd answers', async () => {
        if (outer.exitCode !== null) throw new Error(`systemd did not start: ${complaint}`);
        const [pid] = childrenOf(outer.pid!);
        if (pid === undefined) return false;
        systemd = new Systemd(outer, pid, group);
        const { stdout } = await systemd.try('systemctl', 'is-system-running');
        return stdout === 'running' || stdout === 'degraded';
      });
    } catch (error) {
      await (systemd ?? new Systemd(outer, 0, group))[Symbol.asyncDispose]();
      throw error;
    }
    return systemd!;
  }

  /** Runs a command in it as root. @throws execa's error when it fails */
  run(file: string, ...args: string[]) {
    return this.#execute([file, ...args], true);
  }

  /** As {@link run}, but a failure is a result. */
  try(file: string, ...args: string[]) {
    return this.#execute([file, ...args], false);
  }

  #execute(command: readonly string[], reject: boolean) {
    const [file, ...args] = [...this.enter, ...command];
    const env = { PATH, HOME: '/root', LC_ALL: 'C' };
    return execa(file!, args, { cwd: '/', env, extendEnv: false, reject, timeout: 120_000 });
  }

  /** A property of a unit. */
  async show(unit: string, property: string): Promise<string> {
    return (await this.run('systemctl', 'show', '--value', '--property', property, unit)).stdout;
  }

  /** A file of it, or what `/proc` of a process in it has, as we see them. */
  place(file: string): string {
    return `/proc/${this.pid}/root${file}`;
  }

  read(file: string): Promise<string> {
    return readFile(this.place(file), 'utf8');
  }

  write(file: string, text: string): Promise<void> {
    return writeFile(this.place(file), text);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#outer.exitCode === null && this.#outer.signalCode === null) {
      const gone = once(this.#outer, 'exit');
      // All of its processes end with its first one, whom the kernel kills with unshare.
      this.#outer.kill('SIGKILL');
      await gone;
    }
    for (const place of [CGROUPS, ...foldersIn(CGROUPS)]) {
      const group = path.join(place, this.#group);
      await until(`${group} is gone`, () => removeGroup(group));
    }
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      .trim()
      .split(' ')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

function foldersIn(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(folder, name));
}

/** @returns false while a process that was killed has yet to leave it */
function removeGroup(group: string): boolean {
  try {
    for (const inner of foldersIn(group)) if (!removeGroup(inner)) return false;
    rmdirSync(group);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
  return true;
}
