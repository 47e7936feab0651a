import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import type { CachedXen } from '../../kernels/xen.ts';
import { answering } from './agent.ts';

/** Shells that dom0 serves, so that one can wait for a command while another looks. */
export const SHELLS = 4;
/** Domains whose console can be talked to at one time. */
export const CONSOLES = 4;

/** A file of dom0 beside what it has anyway: where it comes from, and its place. */
export interface Dom0File {
  readonly from: string;
  readonly to: string;
}

/**
 * Makes the initramfs of a dom0: Debian's Xen, busybox, Node, the program with its production dependencies under
 * `/domsched`, and what is given. Its init prints `DOM0 READY` when domains can be created.
 */
export async function makeDom0(target: string, xen: CachedXen, files: readonly Dom0File[]): Promise<void> {
  const root = await mkdtemp(path.join(tmpdir(), 'domsched-dom0-'));
  try {
    for (const directory of ['bin', 'dev', 'proc', 'sys', 'run', 'tmp', 'host', 'modules'])
      await mkdir(path.join(root, directory));
    // Documents, what is for building, and firmware for guests of other kinds.
    const unwanted = ['./usr/share', './usr/include', './boot', 'gconv', '*.a', 'xen-shim', 'hvmloader'];
    await execa('tar', ['-c', '-C', xen.root, ...unwanted.map((name) => `--exclude=${name}`), '.'], {
      encoding: 'buffer',
      maxBuffer: 1e9,
    }).pipe('tar', ['-x', '-C', root]);
    await copyFile('/bin/busybox', path.join(root, 'bin/busybox'));
    for (const file of xen.modules) await copyFile(file, path.join(root, 'modules', path.basename(file)));
    await copyFile(
      path.join(projectDirectory, 'node_modules/node/bin/node'),
      path.join(root, 'usr/bin/node'),
    );
    await copyProgram(path.join(root, 'domsched'));
    await writeFile(path.join(root, 'usr/bin/domsched'), PROGRAM);
    await writeFile(path.join(root, 'usr/bin/bridge-console'), BRIDGE);
    await writeFile(path.join(root, 'init'), initScript(xen));
    for (const file of ['bin/busybox', 'init', 'usr/bin/domsched', 'usr/bin/bridge-console'])
      await chmod(path.join(root, file), 0o755);
    for (const name of ['xl', 'xenconsoled'])
      await symlink(path.join(xen.programs, name), path.join(root, 'bin', name));
    for (const { from, to } of files) {
      await mkdir(path.join(root, path.dirname(to)), { recursive: true });
      await execa('cp', ['-a', '--', from, path.join(root, to)]);
    }
    await execa({ shell: true, cwd: root })`find . | cpio --quiet -o -H newc > ${target}`;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** The program as npm would install it: compiled, with the dependencies that it has in production. */
async function copyProgram(target: string): Promise<void> {
  await mkdir(target, { recursive: true });
  const { stdout } = await execa('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: projectDirectory,
    reject: false,
  });
  const modules = stdout
    .split('\n')
    .slice(1)
    .map((folder) => path.relative(projectDirectory, folder))
    .filter((folder) => folder.startsWith('node_modules/'));
  const list = ['package.json', 'dist', ...modules].join('\n');
  // Folders of nested dependencies come twice; tar takes that, cp would not.
  await execa(
    'tar',
    [
      '-c',
      '-C',
      projectDirectory,
      '--exclude=*.d.ts',
      '--exclude=*.map',
      '--exclude=.tsbuildinfo',
      '-T',
      '-',
    ],
    {
      input: list,
      encoding: 'buffer',
    },
  ).pipe('tar', ['-x', '-C', target]);
}

const PROGRAM = `#!/bin/sh
exec /usr/bin/node /domsched/dist/domsched.js "$@"
`;

/** `bridge-console DOMID PORT`: a domain's console to and from a port to the outside, until the domain ends. */
const BRIDGE = `#!/bin/sh
tty=
while [ -z "$tty" ]; do
  tty=$(xenstore-read /local/domain/$1/console/tty 2>/dev/null) || sleep 0.1
  [ -d /proc/1 ] && xenstore-read /local/domain/$1 >/dev/null 2>&1 || exit 1
done
port=$(grep -lx "$2" /sys/class/virtio-ports/*/name | cut -d/ -f5)
stty -F $tty raw -echo
exec 3<>/dev/$port
# Without a listener outside, a read ends at once.
(while :; do cat <&3 >$tty; sleep 0.2; done) &
cat $tty >&3
kill $!
`;

function initScript(xen: CachedXen): string {
  const modules = xen.modules.map((file) => `insmod /modules/${path.basename(file)}`);
  return `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run
/bin/busybox --install -s /bin
export PATH=${xen.programs}:/bin:/usr/bin:/usr/sbin HOME=/root TERM=dumb NODE_COMPILE_CACHE=/root/.cache/node
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /root /run/xen /run/xenstored /run/lock /var/lib/xenstored /var/lib/xen /var/log/xen
[ -e /var/run ] || ln -s /run /var/run
[ -e /var/lock ] || ln -s /run/lock /var/lock
mount -t devpts devpts /dev/pts
${modules.join('\n')}
mount -t xenfs xenfs /proc/xen
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none host /host || echo DOM0 ERROR: no shared folder
mkdir -p /host/consoles /host/output
oxenstored --pid-file /run/xenstored.pid || echo DOM0 ERROR: xenstored
for i in $(seq 600); do xenstore-exists / 2>/dev/null && break; sleep 0.1; done
xen-init-dom0 || echo DOM0 ERROR: xen-init-dom0
xenconsoled --pid-file=/run/xenconsoled.pid --log=guest --log-dir=/host/consoles || echo DOM0 ERROR: xenconsoled
# Guests that never rest must not slow down what looks at them, and yet get enough not to call it a lockup.
xl sched-credit -d 0 -w 2048 2>/dev/null || xl sched-credit2 -d 0 -w 2048 || echo DOM0 ERROR: weight
for number in $(seq 0 ${SHELLS - 1}); do
  port=$(grep -lx shell$number /sys/class/virtio-ports/*/name | cut -d/ -f5)
  (while :; do
    (${answering('(eval "$line")')}) <>/dev/$port 1>&0 2>&1
    sleep 0.2
  done) &
done
echo DOM0 READY
while :; do sleep 1000; done
`;
}
