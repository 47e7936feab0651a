import { accessSync, constants, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type CachedKernel, cachedKernels } from '../../kernels/cache.ts';
import { replaceWhole } from '../../kernels/make-once.ts';
import { projectDirectory } from '../../kernels/paths.ts';

export type Accelerator = 'kvm' | 'tcg';

const PROBE_LIMIT_MS = 40_000;
const record = path.join(projectDirectory, '.cache', 'live', 'accelerator.json');
let known: Promise<Accelerator> | undefined;

/**
 * KVM where a guest really reaches user space with it, else TCG. Having /dev/kvm proves nothing: nested and
 * software-paged ones exist that start and never get there. Tried once per boot of this machine.
 */
export function workingAccelerator(): Promise<Accelerator> {
  known ??= look();
  return known;
}

async function look(): Promise<Accelerator> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'tcg';
  }
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  try {
    const last = JSON.parse(readFileSync(record, 'utf8')) as { boot: string; accelerator: Accelerator };
    if (last.boot === boot) return last.accelerator;
  } catch {
    // Not tried yet.
  }
  const kernel = cachedKernels()[0];
  if (kernel === undefined) return 'tcg'; // Not tried, so not written down either.
  const accelerator = (await kvmBoots(kernel)) ? 'kvm' : 'tcg';
  console.log(`# KVM probe by booting: tests use ${accelerator}`);
  await replaceWhole(record, (fresh) => writeFile(fresh, JSON.stringify({ boot, accelerator })));
  return accelerator;
}

async function kvmBoots(kernel: CachedKernel): Promise<boolean> {
  const { startMachine } = await import('./guest.ts');
  const { makeInitramfs } = await import('./initramfs.ts');
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-kvm-'));
  try {
    const initrd = path.join(directory, 'initramfs.cpio');
    await makeInitramfs(initrd);
    await using guest = await startMachine({
      name: 'kvm-probe',
      kernel: kernel.vmlinuz,
      initrd,
      append: 'console=ttyS0 quiet panic=-1',
      accelerator: 'kvm',
      cpu: 'host',
    });
    await guest.console.waitFor(/GUEST READY/, PROBE_LIMIT_MS);
    return true;
  } catch {
    return false;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Levels of page tables of a guest with one of QEMU's CPU models: `max` is all that TCG can do, or the host's CPU. */
export function pagingLevels(cpu: 'max' | 'qemu64', accelerator: Accelerator): 4 | 5 {
  if (cpu === 'qemu64') return 4;
  return accelerator === 'tcg' || /\bla57\b/.test(readFileSync('/proc/cpuinfo', 'utf8')) ? 5 : 4;
}
