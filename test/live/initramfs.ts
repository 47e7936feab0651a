import { createHash } from 'node:crypto';
import { chmod, copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { makeOnce } from '../../kernels/make-once.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { answering } from './agent.ts';

const programs = path.join(projectDirectory, 'test/live/programs');
const cache = path.join(projectDirectory, '.cache', 'live');

/** A load that runs from boot on: `kind` as in programs/workload.c, `name` as `ps` shows it and progress counts it. */
export interface GuestProgram {
  readonly kind:
    | 'burner'
    | 'sleeper'
    | 'jobs'
    | 'service'
    | 'pipe'
    | 'threads'
    | 'forker'
    | 'faults'
    | 'unmaps'
    | 'files'
    | 'disk'
    | 'tcp'
    | 'calls'
    | 'storm'
    | 'reaper';
  readonly name: string;
  /** Nice level to start with. */
  readonly nice?: number;
  /** Control group to start in; `setup` makes it. */
  readonly cgroup?: string;
}

export interface InitOptions {
  readonly programs?: readonly GuestProgram[];
  /** Kernel modules that init loads first, in this order. */
  readonly modules?: readonly string[];
  /** Shell lines that init runs before the programs. */
  readonly setup?: string;
  /** Each program is a session of its own, and so an autogroup where the kernel makes them. */
  readonly sessions?: boolean;
  /** Files beside these: where each comes from, by its place. */
  readonly files?: Readonly<Record<string, string>>;
  /** A folder with all of whose files the guest begins, beside its own. */
  readonly root?: string;
  /** Terminal that the shell is served on. */
  readonly shell?: string;
  /** Nice level of that shell: a guest that is full of loads on a slow machine still has to answer. */
  readonly shellNice?: number;
}

/** The loads, compiled. */
export function workloadBinary(directory = cache): Promise<string> {
  return guestBinary('workload', directory);
}

/** A program for guests, compiled: static, kept by the hash of its source. */
export async function guestBinary(
  name: 'workload' | 'kexec' | 'agent' | 'scx',
  directory = cache,
): Promise<string> {
  const source = path.join(programs, `${name}.c`);
  const hash = createHash('sha256')
    .update(await readFile(source))
    .digest('hex')
    .slice(0, 16);
  return makeOnce(path.join(directory, `${name}-${hash}`), (fresh) =>
    execa('gcc', ['-static', '-O1', '-Wall', '-Werror', '-pthread', '-o', fresh, source]),
  );
}

/**
 * Makes an initramfs with busybox, the loads and an init that starts them, prints `GUEST READY` on the console and
 * serves a shell on a terminal: the second serial port, if not another.
 */
export async function makeInitramfs(target: string, options: InitOptions = {}): Promise<void> {
  const root = await mkdtemp(path.join(tmpdir(), 'domsched-initramfs-'));
  try {
    if (options.root !== undefined) await cp(options.root, root, { recursive: true, verbatimSymlinks: true });
    for (const directory of ['bin', 'dev', 'mnt', 'proc', 'sys', 'run', 'tmp'])
      await mkdir(path.join(root, directory), { recursive: true });
    await copyFile('/bin/busybox', path.join(root, 'bin/busybox'));
    await copyFile(await workloadBinary(), path.join(root, 'bin/workload'));
    await mkdir(path.join(root, 'modules'));
    for (const file of options.modules ?? [])
      await copyFile(file, path.join(root, 'modules', path.basename(file)));
    for (const [to, from] of Object.entries(options.files ?? {})) await copyFile(from, path.join(root, to));
    await writeFile(path.join(root, 'init'), initScript(options));
    for (const file of ['bin/busybox', 'bin/workload', 'init']) await chmod(path.join(root, file), 0o755);
    await execa({ shell: true, cwd: root })`find . | cpio --quiet -o -H newc > ${target}`;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function initScript(options: InitOptions): string {
  const { programs = [], setup = '', sessions = false, shell = 'ttyS1', shellNice } = options;
  const starts = programs.map(({ kind, name, nice, cgroup }) => {
    const start = `${sessions ? 'setsid ' : ''}/bin/workload ${kind} ${name}`;
    const within = cgroup === undefined ? '' : `echo 0 >/sys/fs/cgroup/${cgroup}/cgroup.procs; `;
    return `(${within}exec ${start}) </dev/null &${nice ? ` renice -n ${nice} -p $!` : ''}`;
  });
  const loads = (options.modules ?? []).map((file) => `insmod /modules/${path.basename(file)}`);
  return `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mkdir -p /run/progress
ifconfig lo 127.0.0.1 up
${loads.join('\n')}
if [ -b /dev/vda ]; then mke2fs /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt; fi
${setup}
${starts.join('\n')}
stty -F /dev/${shell} raw -echo
${shellNice === undefined ? '' : `renice ${shellNice} -p $$`}
echo GUEST READY
while :; do
  (${answering('eval "$line"')}) </dev/${shell} >/dev/${shell} 2>&1
done
`;
}
