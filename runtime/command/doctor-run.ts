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

function ok(check: string, found: string): DoctorFinding {
  return { check, status: 'ok', found, advice: null };
}

function warn(check: string, found: string, advice: string): DoctorFinding {
  return { check, status: 'warn', found, advice };
}

function fail(check: string, found: string, advice: string | null): DoctorFinding {
  return { check, status: 'fail', found, advice };
}

function platform(): DoctorFinding {
  const found = `${process.platform} ${process.arch}, Node ${process.versions.node}`;
  const fits = process.platform === 'linux' && process.arch === 'x64';
  return fits ? ok('host', found) : fail('host', found, 'domsched runs on 64-bit x86 Linux hosts');
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
    if (works) return ok(check, 'process_vm_readv works');
    return fail(check, 'process_vm_readv copies nothing', 'run outside of the sandbox');
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    return fail(check, found, 'run outside of the sandbox, or allow process_vm_readv in it');
  }
}

/** Access to other processes' memory, which guests without a memory file need. */
function ptraceScope(): DoctorFinding {
  const check = 'memory of other processes';
  if (process.geteuid?.() === 0) return ok(check, 'running as root');
  const scope = readText('/proc/sys/kernel/yama/ptrace_scope');
  const found =
    scope === '' || scope === '0' ? 'not root: our own processes only' : `not root, ptrace_scope ${scope}`;
  return warn(
    check,
    found,
    'run as root, or give guests a memory-backend-file with share=on that we may open',
  );
}

/** Pausing machines that have no socket for us. */
async function tracing(): Promise<DoctorFinding[]> {
  const check = 'tracing other processes';
  const { hindrances, tracerOfMachine } = await import('../hypervisor/vmm/may-trace.ts');
  const { MachineSearch } = await import('../hypervisor/vmm/machine-process.ts');
  const findings = hindrances().map(({ found, advice }) => warn(check, found, advice));
  for (const { pid, name } of new MachineSearch().find()) {
    const tracer = tracerOfMachine(pid);
    if (tracer === undefined) continue;
    const found = `process ${pid} (${name}) is traced by process ${tracer}`;
    findings.push(warn(check, found, 'end that debugger to pause this machine'));
  }
  return findings.length > 0 ? findings : [ok(check, 'nothing forbids it')];
}

/** Separate because in a block with `using` the compiler does not rewrite the name of an imported file. */
const loadXen = () => import('../hypervisor/xen/host.ts');

/** Checks whether Xen's domains can be reached, by opening everything as for real work. */
async function xen(): Promise<DoctorFinding[]> {
  const check = 'Xen';
  const place = lookForDom0();
  if (!place.dom0) return [warn(check, place.reason, place.advice)];
  try {
    const { XenHost } = await loadXen();
    await using host = await XenHost.connect('xen:');
    const findings = [ok(check, `${host.version}, this is its dom0`), schedulerFinding(host.scheduler)];
    if (!host.hasNames) {
      const advice = 'start xenstored and install libxenstore4: domains go by their numbers without it';
      findings.push(warn('xenstore', 'does not answer', advice));
    }
    if (!host.canInject) {
      const advice = 'install libxendevicemodel1: HVM and PVH guests wait for their ticks without it';
      findings.push(warn('Xen interrupts', 'cannot be sent', advice));
    }
    return findings;
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return [fail(check, error.code, error.message)];
  }
}

function schedulerFinding(found: string): DoctorFinding {
  const check = "Xen's scheduler";
  if (found.startsWith('credit')) return ok(check, found);
  return warn(check, found, 'weight and cap need credit or credit2: boot Xen with sched=credit2');
}

function kvm(): DoctorFinding {
  const check = '/dev/kvm';
  if (!existsSync('/dev/kvm'))
    return warn(check, 'absent', 'guests run emulated; domsched works with those as well');
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return ok(check, 'present; whether guests boot with it only a boot can tell');
  } catch {
    return warn(check, 'present, not permitted', 'add the user to the group kvm');
  }
}

async function tool(name: string, args: string[], purpose: string): Promise<DoctorFinding> {
  try {
    const { stdout } = await execa(name, args, { timeout: 10_000 });
    return ok(name, stdout.split('\n')[0] ?? '');
  } catch {
    return warn(name, 'not found', `install it ${purpose}`);
  }
}

async function layouts(): Promise<DoctorFinding> {
  const check = 'layouts';
  try {
    const known = await knownKernels();
    const found = `${known.length} kernels known`;
    return known.length > 0 ? ok(check, found) : fail(check, found, 'make one: domsched extract vmlinux');
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return fail(check, error.message, null);
  }
}

async function machines(connect: readonly string[]): Promise<DoctorFinding[]> {
  try {
    return await domains(connect);
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code === 'usage') throw error;
    return [fail('domains', error.code, error.message)];
  }
}

async function domains(connect: readonly string[]): Promise<DoctorFinding[]> {
  await using control = new LocalControl(connect);
  const found = await control.domains();
  if (found.length === 0)
    return [warn('domains', 'none', 'start a machine of QEMU or KVM, or say --connect')];
  return found.map(({ domain, state, kernel, error, standing }) => {
    const check = `domain ${domain}`;
    if (standing !== null) return fail(check, 'stands still', standing);
    return error === null ? ok(check, `${state}, ${kernel}`) : fail(check, error.code, error.message);
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
