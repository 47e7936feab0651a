import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import process from 'node:process';
import Table from 'cli-table3';
import { execa } from 'execa';
import { LocalControl } from '../control/local.ts';
import { DomschedError } from '../error.ts';
import { jsonText, printable } from '../guest/text.ts';
import { lookForDom0 } from '../hypervisor/xen/dom0.ts';
import { knownKernels } from '../layout/registry.ts';
import { PLAIN } from './plain-table.ts';

export interface DoctorOptions {
  connect?: string[];
  json?: true;
}

/** One line of `doctor --json`. Its keys are stable. */
export interface DoctorFinding {
  readonly check: string;
  /** `fail`: domsched cannot do its work here; `warn`: something optional does not work. */
  readonly status: 'ok' | 'warn' | 'fail';
  readonly found: string;
  /** What to do about it; null if nothing. */
  readonly advice: string | null;
}

/**
 * Runs `domsched doctor`, which changes nothing. The exit code is 1 if a check fails.
 * @throws DomschedError `usage`
 */
export async function doctor(options: DoctorOptions): Promise<void> {
  const findings = await examine(options.connect ?? []);
  process.stdout.write(options.json ? jsonText(findings) : findingTable(findings));
  if (findings.some(({ status }) => status === 'fail')) process.exitCode = 1;
}

/** Runs all checks, in printing order. */
export async function examine(connect: readonly string[]): Promise<DoctorFinding[]> {
  return [
    platform(),
    await memoryAccess(),
    ptraceScope(),
    ...(await tracing()),
    ...(await xen()),
    kvm(),
    await tool(
      'qemu-system-x86_64',
      ['--version'],
      'to run test guests; guests of other programs need none of it',
    ),
    await tool('gdb', ['--version'], 'for the gdb engine of extract only'),
    await layouts(),
    ...(await machines(connect)),
  ];
}

function platform(): DoctorFinding {
  const found = `${process.platform} ${process.arch}, Node ${process.versions.node}`;
  const fits = process.platform === 'linux' && process.arch === 'x64';
  const advice = fits ? null : 'domsched runs on 64-bit x86 Linux hosts';
  return { check: 'host', status: fits ? 'ok' : 'fail', found, advice };
}

/** Copies a word within our own memory by the calls that read guests. */
async function memoryAccess(): Promise<DoctorFinding> {
  const check = 'reading process memory';
  try {
    const { addressOf, ProcessMemory, RangeList } = await import('../hypervisor/process-memory.ts');
    const bytes = new Uint8Array(new ArrayBuffer(4096));
    bytes[0] = 0x5a;
    const local = new RangeList();
    const remote = new RangeList();
    local.set(0, addressOf(bytes) + 8, 8);
    remote.set(0, addressOf(bytes), 8);
    const works = new ProcessMemory().read(local, 1, remote, 1) === 8 && bytes[8] === 0x5a;
    if (works) return { check, status: 'ok', found: 'process_vm_readv works', advice: null };
    return {
      check,
      status: 'fail',
      found: 'process_vm_readv copies nothing',
      advice: 'run outside of the sandbox',
    };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    return {
      check,
      status: 'fail',
      found,
      advice: 'run outside of the sandbox, or allow process_vm_readv in it',
    };
  }
}

/** Access to other processes' memory, which guests without a memory file need. */
function ptraceScope(): DoctorFinding {
  const check = 'memory of other processes';
  if (process.geteuid?.() === 0) return { check, status: 'ok', found: 'running as root', advice: null };
  const scope = readText('/proc/sys/kernel/yama/ptrace_scope');
  const advice = 'run as root, or give guests a memory-backend-file with share=on that we may open';
  if (scope === '' || scope === '0') {
    return { check, status: 'warn', found: 'not root: our own processes only', advice };
  }
  return { check, status: 'warn', found: `not root, ptrace_scope ${scope}`, advice };
}

/** Pausing machines that have no socket for us. */
async function tracing(): Promise<DoctorFinding[]> {
  const check = 'tracing other processes';
  const { hindrances, tracerOfMachine } = await import('../hypervisor/vmm/may-trace.ts');
  const { MachineSearch } = await import('../hypervisor/vmm/machine-process.ts');
  const findings = hindrances().map(
    ({ found, advice }): DoctorFinding => ({ check, status: 'warn', found, advice }),
  );
  for (const { pid, name } of new MachineSearch().find()) {
    const tracer = tracerOfMachine(pid);
    if (tracer === undefined) continue;
    const found = `process ${pid} (${name}) is traced by process ${tracer}`;
    findings.push({ check, status: 'warn', found, advice: 'end that debugger to pause this machine' });
  }
  return findings.length > 0
    ? findings
    : [{ check, status: 'ok', found: 'nothing forbids it', advice: null }];
}

/** Separate because in a block with `using` the compiler does not rewrite the name of an imported file. */
const loadXen = () => import('../hypervisor/xen/host.ts');

/** Checks whether Xen's domains can be reached, by opening everything as for real work. */
async function xen(): Promise<DoctorFinding[]> {
  const check = 'Xen';
  const place = lookForDom0();
  if (!place.dom0) return [{ check, status: 'warn', found: place.reason, advice: place.advice }];
  try {
    const { XenHost } = await loadXen();
    await using host = await XenHost.connect('xen:');
    const findings: DoctorFinding[] = [
      { check, status: 'ok', found: `${host.version}, this is its dom0`, advice: null },
      schedulerFinding(host.scheduler),
    ];
    if (!host.hasNames) {
      const advice = 'start xenstored and install libxenstore4: domains go by their numbers without it';
      findings.push({ check: 'xenstore', status: 'warn', found: 'does not answer', advice });
    }
    if (!host.canInject) {
      const advice = 'install libxendevicemodel1: HVM and PVH guests wait for their ticks without it';
      findings.push({ check: 'Xen interrupts', status: 'warn', found: 'cannot be sent', advice });
    }
    return findings;
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return [{ check, status: 'fail', found: error.code, advice: error.message }];
  }
}

function schedulerFinding(found: string): DoctorFinding {
  const check = "Xen's scheduler";
  if (found.startsWith('credit')) return { check, status: 'ok', found, advice: null };
  const advice = 'weight and cap need credit or credit2: boot Xen with sched=credit2';
  return { check, status: 'warn', found, advice };
}

function kvm(): DoctorFinding {
  const check = '/dev/kvm';
  if (!existsSync('/dev/kvm')) {
    return {
      check,
      status: 'warn',
      found: 'absent',
      advice: 'guests run emulated; domsched works with those as well',
    };
  }
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return {
      check,
      status: 'ok',
      found: 'present; whether guests boot with it only a boot can tell',
      advice: null,
    };
  } catch {
    return {
      check,
      status: 'warn',
      found: 'present, not permitted',
      advice: 'add the user to the group kvm',
    };
  }
}

async function tool(name: string, args: string[], purpose: string): Promise<DoctorFinding> {
  try {
    const { stdout } = await execa(name, args, { timeout: 10_000 });
    return { check: name, status: 'ok', found: stdout.split('\n')[0] ?? '', advice: null };
  } catch {
    return { check: name, status: 'warn', found: 'not found', advice: `install it ${purpose}` };
  }
}

async function layouts(): Promise<DoctorFinding> {
  const check = 'layouts';
  try {
    const known = await knownKernels();
    const found = `${known.length} kernels known`;
    if (known.length > 0) return { check, status: 'ok', found, advice: null };
    return { check, status: 'fail', found, advice: 'make one: domsched extract vmlinux' };
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return { check, status: 'fail', found: error.message, advice: null };
  }
}

async function machines(connect: readonly string[]): Promise<DoctorFinding[]> {
  try {
    return await domains(connect);
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code === 'usage') throw error;
    return [{ check: 'domains', status: 'fail', found: error.code, advice: error.message }];
  }
}

async function domains(connect: readonly string[]): Promise<DoctorFinding[]> {
  await using control = new LocalControl(connect);
  const found = await control.domains();
  if (found.length === 0) {
    const advice = 'start a machine of QEMU or KVM, or say --connect';
    return [{ check: 'domains', status: 'warn', found: 'none', advice }];
  }
  return found.map(({ domain, state, kernel, error }): DoctorFinding => {
    const check = `domain ${domain}`;
    if (error === null) return { check, status: 'ok', found: `${state}, ${kernel}`, advice: null };
    return { check, status: 'fail', found: error.code, advice: error.message };
  });
}

function findingTable(findings: readonly DoctorFinding[]): string {
  const table = new Table({ head: ['check', 'status', 'found', 'advice'], ...PLAIN });
  for (const { check, status, found, advice } of findings) {
    table.push([printable(check), status, printable(found), printable(advice ?? '')]);
  }
  return `${table.toString()}\n`;
}

/** Content of a system file, or an empty string if it is missing. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}
