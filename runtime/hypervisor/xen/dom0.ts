import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** Whether Xen's domains can be reached from this machine, and if not, why. */
export type Dom0 =
  | { readonly dom0: true; readonly version: string | undefined }
  | { readonly dom0: false; readonly reason: string; readonly advice: string };

/**
 * Reads what the kernel says about its role under Xen.
 * @param root root of /proc, /sys and /dev
 */
export function lookForDom0(root = '/'): Dom0 {
  const hypervisor = read(root, 'sys/hypervisor/type');
  const capabilities = read(root, 'proc/xen/capabilities');
  if (capabilities === undefined) {
    if (hypervisor !== 'xen') {
      return {
        dom0: false,
        reason: 'this is no dom0',
        advice: 'to schedule Xen domains run domsched in dom0',
      };
    }
    return {
      dom0: false,
      reason: 'it cannot be told whether this is a dom0: xenfs is not mounted',
      advice: 'mount -t xenfs xenfs /proc/xen',
    };
  }
  if (!capabilities.includes('control_d')) {
    return {
      dom0: false,
      reason: 'a Xen guest, not its dom0',
      advice: 'to schedule Xen domains run domsched in dom0',
    };
  }
  if (!existsSync(path.join(root, 'dev/xen/privcmd'))) {
    return { dom0: false, reason: 'dom0 without /dev/xen/privcmd', advice: 'modprobe xen-privcmd' };
  }
  const major = read(root, 'sys/hypervisor/version/major');
  const minor = read(root, 'sys/hypervisor/version/minor');
  return { dom0: true, version: major && minor ? `${major}.${minor}` : undefined };
}

function read(root: string, file: string): string | undefined {
  try {
    return readFileSync(path.join(root, file), 'utf8').trim();
  } catch {
    return undefined;
  }
}
