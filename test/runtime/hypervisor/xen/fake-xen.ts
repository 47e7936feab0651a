import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';
import { FRAME_SIZE } from '../../../../runtime/hypervisor/frame.ts';
import { XenHost } from '../../../../runtime/hypervisor/xen/host.ts';
import { libraryOfC } from '../c-program.ts';

const SOURCE = fileURLToPath(new URL('fake-xen.c', import.meta.url));
const SONAMES = [
  'libxenctrl.so.4.17',
  'libxenforeignmemory.so.1',
  'libxentoollog.so.1',
  'libxendevicemodel.so.1',
  'libxenstore.so.4',
];
/** As the enumerations in fake-xen.c have them. */
export const CALL = { pause: 1, unpause: 2, info: 3, context: 4, map: 5, set: 6, msi: 7 } as const;
export const FRAME_KIND = { absent: 0, normal: 1, readOnly: 2, denied: 3 } as const;

/** A Xen of a test's own: folders that look like a dom0, and libraries that hold domains. */
export class FakeXen implements Disposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'domsched-xen-'));
  readonly #lib: ReturnType<typeof koffi.load>;

  constructor() {
    for (const [file, content] of Object.entries({
      'sys/hypervisor/type': 'xen\n',
      'sys/hypervisor/version/major': '4\n',
      'sys/hypervisor/version/minor': '17\n',
      'proc/xen/capabilities': 'control_d\n',
      'dev/xen/privcmd': '',
    })) {
      this.file(file, content);
    }
    for (const soname of SONAMES) copyFileSync(libraryOfC(SOURCE), path.join(this.directory, soname));
    // By a name of its own, so that a library that is to be missing is not there already.
    const control = path.join(this.directory, 'control.so');
    copyFileSync(libraryOfC(SOURCE), control);
    this.#lib = koffi.load(control);
    this.domain({ domid: 0, name: 'Domain-0', firstFrame: 0 });
  }

  /** Writes one of the files by which a dom0 is known; undefined takes it away. */
  file(name: string, content: string | undefined): void {
    const file = path.join(this.directory, name);
    if (content === undefined) {
      rmSync(file);
      return;
    }
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
  }

  connect(): Promise<XenHost> {
    return XenHost.connect('xen:', { root: this.directory, libraries: this.directory });
  }

  domain(options: {
    domid: number;
    name: string;
    hvm?: boolean;
    firstFrame?: number;
    frames?: number;
    vcpus?: number;
  }): void {
    const { domid, name, hvm = false, firstFrame = 1000, frames = 64, vcpus = 2 } = options;
    this.#call('void fake_domain(uint32_t, int, const char *, uint64_t, int, int)')(
      domid,
      hvm ? 1 : 0,
      name,
      firstFrame,
      frames,
      vcpus,
    );
  }

  vcpu(
    domid: number,
    vcpu: number,
    registers: {
      inKernel: boolean;
      cr3: bigint;
      gs: bigint;
      otherGs: bigint;
      rip: bigint;
      rsp: bigint;
      idt: bigint;
    },
  ): void {
    const { inKernel, cr3, gs, otherGs, rip, rsp, idt } = registers;
    const set = this.#call(
      'void fake_vcpu(uint32_t, int, int, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t)',
    );
    set(domid, vcpu, inKernel ? 1 : 0, cr3, gs, otherGs, rip, rsp, idt);
  }

  vcpuState(
    domid: number,
    vcpu: number,
    state: { online: boolean; blocked: boolean; initialised: boolean },
  ): void {
    const set = this.#call('void fake_vcpu_state(uint32_t, int, int, int, int)');
    set(domid, vcpu, Number(state.online), Number(state.blocked), Number(state.initialised));
  }

  /** A vCPU runs for so long. */
  vcpuRan(domid: number, vcpu: number, ns: number): void {
    this.#call('void fake_vcpu_ran(uint32_t, int, uint64_t)')(domid, vcpu, BigInt(ns));
  }

  /** What a frame is from now on. */
  frame(domid: number, frame: number, kind: keyof typeof FRAME_KIND): void {
    this.#call('void fake_frame(uint32_t, uint64_t, int)')(domid, frame, FRAME_KIND[kind]);
  }

  /** The guest writes to its own memory. */
  store(domid: number, frame: number, offset: number, bytes: Uint8Array): void {
    this.#memory(domid, frame, offset, Uint8Array.from(bytes), 1);
  }

  /** The guest looks at its own memory. */
  load(domid: number, frame: number, offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.#memory(domid, frame, offset, bytes, 0);
    return bytes;
  }

  /** The domain ends, at once or (`dying`) as long as somebody has its memory. */
  end(domid: number, dying = false): void {
    this.#call('void fake_end(uint32_t, int)')(domid, dying ? 1 : 0);
  }

  shutdown(domid: number, reason: number): void {
    this.#call('void fake_shutdown(uint32_t, int)')(domid, reason);
  }

  /** The next call of that kind fails, or the one after so many more. */
  fail(call: keyof typeof CALL, errno: number, after = 0): void {
    this.#call('void fake_fail(int, int, int)')(CALL[call], errno, after);
  }

  /** How often a domain is paused now, by whomever. */
  pauses(domid: number): number {
    return this.#call('int fake_pauses(uint32_t)')(domid) as number;
  }

  /** Somebody else pauses (1) or unpauses (-1). */
  otherPause(domid: number, by: 1 | -1): void {
    this.#call('void fake_other_pause(uint32_t, int)')(domid, by);
  }

  /** The domain gets CPU time. */
  run(domid: number, ns: number): void {
    this.#call('void fake_run(uint32_t, uint64_t)')(domid, ns);
  }

  /** What libxl notes of the file that a domain was built from. */
  kernel(domid: number, file: string): void {
    this.#call('void fake_kernel(uint32_t, const char *)')(domid, file);
  }

  set(what: string, value: number, domid = 0): void {
    this.#call('void fake_set(const char *, uint32_t, int64_t)')(what, domid, value);
  }

  get(what: string, domid = 0): number {
    return Number(this.#call('int64_t fake_get(const char *, uint32_t)')(what, domid));
  }

  /** Whether a pause that was left behind is noted. */
  get hasNotes(): boolean {
    const folder = path.join(this.directory, 'run/domsched/pauses');
    return existsSync(folder) && readdirSync(folder).some((name) => name.startsWith('xen-'));
  }

  /** Pages of a domain that this process has mapped, by the kernel's own account. */
  mappedPages(domid: number): number {
    const file = path.join(this.directory, `memory-${domid}`);
    let bytes = 0;
    for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
      if (!line.endsWith(` ${file}`)) continue;
      const [start = '', end = ''] = line.split(' ', 1)[0]!.split('-');
      bytes += Number.parseInt(end, 16) - Number.parseInt(start, 16);
    }
    return bytes / FRAME_SIZE;
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  #memory(domid: number, frame: number, offset: number, bytes: Uint8Array, write: number): void {
    const call = this.#call('void fake_memory(uint32_t, uint64_t, uint32_t, void *, uint32_t, int)');
    call(domid, frame, offset, bytes, bytes.length, write);
  }

  #call(declaration: string): (...values: unknown[]) => unknown {
    return this.#lib.func(declaration);
  }
}
