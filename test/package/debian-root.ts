import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { archiveUri } from '../../kernels/suites.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The files of a fresh Debian that has apt and nothing more: a machine right after it was installed. */
export class DebianRoot implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** @param suite `bookworm`, `trixie`; made once, then kept in `.cache/roots` */
  static async of(suite: string): Promise<DebianRoot> {
    const cache = path.join(projectDirectory, '.cache/roots');
    const image = path.join(cache, `${suite}.tar`);
    if (!existsSync(image)) {
      await mkdir(cache, { recursive: true });
      const source = `deb [signed-by=${KEYRING}] ${await archiveUri()} ${suite} main`;
      const making = path.join(cache, `${suite}-${process.pid}.tar`);
      await execa('mmdebstrap', ['--variant=apt', '--mode=root', suite, making, source], { env: { PATH } });
      await rename(making, image);
    }
    const root = new DebianRoot(await mkdtemp(path.join(tmpdir(), `debian-${suite}-`)));
    await execa('tar', ['-xf', image, '-C', root.directory]);
    return root;
  }

  /** Where a file of it is for us. */
  place(file: string): string {
    return path.join(this.directory, file);
  }

  /** Runs lines of shell in it as root: without a network, and with no process but its own. */
  run(script: string) {
    const enter = 'mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -ec "$2"';
    const apart = ['--mount', '--pid', '--net', '--fork', '--kill-child'];
    const env = { PATH, HOME: '/root', LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
    return execa('unshare', [...apart, 'sh', '-c', enter, 'sh', this.directory, script], {
      env,
      extendEnv: false,
      reject: false,
      all: true,
    });
  }

  /** All its files, but what apt, dpkg, debconf and useradd write down for themselves. */
  async files(): Promise<string[]> {
    const notes = [
      '/proc',
      ...['passwd-', 'group-', 'shadow-', 'gshadow-', '.pwd.lock'].map((name) => `/etc/${name}`),
      '/dev',
      '/var/lib/dpkg',
      '/var/lib/apt',
      '/var/cache/apt',
      '/var/cache/debconf',
      '/var/log',
    ];
    const without = notes.map((place) => `-path ${place} -prune -o`).join(' ');
    return (await this.run(`find / -xdev ${without} -print`)).stdout.split('\n').sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}
