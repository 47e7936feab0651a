import { readFileSync } from 'node:fs';
import path from 'node:path';
import { tracerOf } from './stopped-threads.ts';
import { threadsOf } from './vcpu-threads.ts';

/** From include/uapi/linux/capability.h. */
const CAP_SYS_PTRACE = 19n;
/** Yama's `ptrace_scope` (Linux admin-guide/LSM/Yama) that forbids tracing to all, until the next boot. */
const SCOPE_NOBODY = '3';

/** An obstacle on this host to tracing a process, and how to remove it. */
export interface Hindrance {
  readonly found: string;
  readonly advice: string;
}

const OTHERWISE =
  'else give machines a QMP socket of ours: -qmp unix:/run/domsched/NAME.sock,server=on,wait=off';

/**
 * Finds the reasons why we cannot trace processes on this host.
 * @param root root of the kernel's files; a test has its own
 */
export function hindrances(root = '/'): Hindrance[] {
  const read = (file: string) => textOf(path.join(root, file));
  const found: Hindrance[] = [];
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(read('proc/self/status'))?.[1];
  if (capabilities !== undefined && ((BigInt(`0x${capabilities}`) >> CAP_SYS_PTRACE) & 1n) === 0n) {
    const advice = `run as root on the host itself, or give the container CAP_SYS_PTRACE; ${OTHERWISE}`;
    found.push({ found: 'no CAP_SYS_PTRACE', advice });
  }
  if (read('proc/sys/kernel/yama/ptrace_scope') === SCOPE_NOBODY) {
    const advice = `set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot: 3 cannot be taken back; ${OTHERWISE}`;
    found.push({ found: 'ptrace_scope 3: nobody may', advice });
  }
  if (read('sys/fs/selinux/booleans/deny_ptrace').startsWith('1')) {
    const advice = `setsebool deny_ptrace off; ${OTHERWISE}`;
    found.push({ found: "SELinux's deny_ptrace is on", advice });
  }
  return found;
}

/** Pid of the process that already traces a machine; undefined if there is none. */
export function tracerOfMachine(pid: number): number | undefined {
  return threadsOf(pid)
    .map(({ tid }) => tracerOf(tid))
    .find((tracer) => tracer > 0);
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
