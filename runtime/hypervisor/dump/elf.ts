import type { VcpuRegisters } from '../types.ts';
import { ASSUMED_EFER, type DumpContent, type ElfSection } from './content.ts';
import type { DumpBytes } from './file.ts';
import { PlainPages, wholeFrames } from './plain-pages.ts';
import type { DumpRun } from './runs.ts';
import { readXenCore } from './xen-core.ts';

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;
const SECTION_HEADER = 64;
const ET_CORE = 4;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** Type of a note that describes a process; only process cores have it. */
const NT_PRPSINFO = 3;
/** e_phnum if there are more headers than fit; then sh_info of section header 0 has the count. */
const PN_XNUM = 0xffff;
const MAX_PROGRAM_HEADERS = 1_000_000;

/** One ELF note. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly content: Buffer;
}

/** Advice for a file that is not a dump of a guest. */
export const TAKE_A_DUMP =
  'take a dump of the running guest: dump-guest-memory in the monitor of QEMU, virsh dump --memory-only, xl dump-core';

/**
 * Reads an ELF core: QEMU's `dump-guest-memory`, a crash kernel's `/proc/vmcore`, or `xl dump-core`.
 * @throws DomschedError `dump-corrupt`, `dump-unsupported`
 */
export function readElfCore(file: DumpBytes): DumpContent {
  const header = file.block(0, ELF_HEADER, 'ELF header');
  refuseOthers(file, header);
  const sections = readSections(file, header);
  if (sections.some(({ name }) => name === '.xen_pages')) return readXenCore(file, sections);
  const runs: DumpRun[] = [];
  const notes: ElfNote[] = [];
  const count = programHeaderCount(file, header);
  const table = Number(header.readBigUInt64LE(32));
  if (header.readUInt16LE(54) !== PROGRAM_HEADER || count > MAX_PROGRAM_HEADERS)
    file.corrupt('program header table', table);
  const headers = file.block(table, count * PROGRAM_HEADER, 'program header table');
  for (let i = 0; i < count; i++) {
    const at = i * PROGRAM_HEADER;
    const type = headers.readUInt32LE(at);
    const offset = Number(headers.readBigUInt64LE(at + 8));
    const physical = Number(headers.readBigUInt64LE(at + 24));
    const size = Number(headers.readBigUInt64LE(at + 32));
    // A mapping of no physical memory has address -1.
    if (type === PT_LOAD && size > 0 && physical < 2 ** 52) {
      if (physical + size > 2 ** 52 || offset + size > file.size) file.corrupt(`segment ${i}`, offset);
      runs.push(wholeFrames(physical, size, offset));
    } else if (type === PT_NOTE) {
      notes.push(...parseNotes(file.block(offset, size, 'notes'), file, offset));
    }
  }
  if (runs.every(({ count }) => count === 0)) file.corrupt('program header table without memory', table);
  const ofProcess = notes.some(({ name, type }) => name === 'CORE' && type === NT_PRPSINFO);
  if (ofProcess && runs.every(({ first }) => first === 0))
    file.unsupported('the core of a process, which does not say where the memory of a guest is', TAKE_A_DUMP);
  return {
    format: 'elf-core',
    space: 'guest',
    pages: new PlainPages(file, runs),
    registers: qemuRegisters(notes, file),
  };
}

/** @throws DomschedError `dump-unsupported` for an ELF file that is not a dump of a 64-bit x86 machine */
function refuseOthers(file: DumpBytes, header: Buffer): void {
  const type = header.readUInt16LE(16);
  const machine = header.readUInt16LE(18);
  if (header[5] === 1 && type !== ET_CORE)
    file.unsupported('a program or a kernel (ELF, but no core) and no dump', TAKE_A_DUMP);
  if (header[4] !== 2 || header[5] !== 1 || machine !== EM_X86_64) {
    const advice = 'domsched reads guests with a 64-bit x86 kernel';
    file.unsupported(
      `a core of another kind of machine (ELF class ${header[4]}, machine ${machine})`,
      advice,
    );
  }
}

/** Registers of the vCPUs from QEMU's own notes; undefined if there are none. */
export function qemuRegisters(
  notes: readonly ElfNote[],
  file: DumpBytes,
): readonly VcpuRegisters[] | undefined {
  const registers = notes
    .filter(({ name, type }) => name === 'QEMU' && type === 0)
    .map(({ content }, vcpu) => readQemuNote(content, vcpu, file));
  return registers.length > 0 ? registers : undefined;
}

/** Notes of a PT_NOTE segment or SHT_NOTE section. */
export function parseNotes(bytes: Buffer, file: DumpBytes, offset: number): ElfNote[] {
  const notes: ElfNote[] = [];
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameSize = bytes.readUInt32LE(at);
    const size = bytes.readUInt32LE(at + 4);
    const content = at + 12 + align4(nameSize);
    if (content + size > bytes.length) file.corrupt('note', offset + at);
    const name = bytes.toString('latin1', at + 12, at + 12 + Math.max(0, nameSize - 1));
    notes.push({ name, type: bytes.readUInt32LE(at + 8), content: bytes.subarray(content, content + size) });
    at = content + align4(size);
  }
  return notes;
}

function align4(size: number): number {
  return Math.ceil(size / 4) * 4;
}

function programHeaderCount(file: DumpBytes, header: Buffer): number {
  const count = header.readUInt16LE(56);
  if (count !== PN_XNUM) return count;
  const sections = Number(header.readBigUInt64LE(40));
  return file.block(sections, SECTION_HEADER, 'section header 0').readUInt32LE(44);
}

function readSections(file: DumpBytes, header: Buffer): ElfSection[] {
  const table = Number(header.readBigUInt64LE(40));
  const count = header.readUInt16LE(60);
  const namesIndex = header.readUInt16LE(62);
  if (table === 0 || count === 0 || header.readUInt16LE(58) !== SECTION_HEADER || namesIndex >= count)
    return [];
  const headers = file.block(table, count * SECTION_HEADER, 'section header table');
  const place = (index: number) => ({
    offset: Number(headers.readBigUInt64LE(index * SECTION_HEADER + 24)),
    size: Number(headers.readBigUInt64LE(index * SECTION_HEADER + 32)),
  });
  const namesPlace = place(namesIndex);
  const names = file.block(namesPlace.offset, namesPlace.size, 'section names');
  return Array.from({ length: count }, (_, index) => {
    const start = headers.readUInt32LE(index * SECTION_HEADER);
    const end = names.indexOf(0, start);
    return { name: names.toString('latin1', start, end < 0 ? start : end), ...place(index) };
  });
}

/** Offsets in QEMUCPUState (QEMU target/i386/arch_dump.c), which is a file format, not a kernel structure. */
const QEMU_STATE = {
  size: 4,
  rsp: 56,
  rip: 136,
  rflags: 144,
  segments: 152,
  controls: 392,
  kernelGs: 432,
} as const;
/** QEMUCPUSegment: selector, limit, flags, padding, base. */
const SEGMENT = { length: 24, limit: 4, base: 16 } as const;
const CS = 0;
const GS = 4;
const TR = 7;
const IDT = 9;

function readQemuNote(state: Buffer, vcpu: number, file: DumpBytes): VcpuRegisters {
  if (state.length < QEMU_STATE.kernelGs || state.readUInt32LE(QEMU_STATE.size) > state.length) {
    file.corrupt(`register note of vCPU ${vcpu}`, 0);
  }
  const segment = (index: number) => QEMU_STATE.segments + index * SEGMENT.length;
  const control = (index: number) => state.readBigUInt64LE(QEMU_STATE.controls + index * 8);
  return {
    vcpu,
    cr0: control(0),
    cr3: control(3),
    cr4: control(4),
    efer: ASSUMED_EFER,
    gsBase: state.readBigUInt64LE(segment(GS) + SEGMENT.base),
    // The state of older QEMUs ends before it.
    kernelGsBase:
      state.length >= QEMU_STATE.kernelGs + 8 ? state.readBigUInt64LE(QEMU_STATE.kernelGs) : undefined,
    tssBase: state.readBigUInt64LE(segment(TR) + SEGMENT.base),
    idtBase: state.readBigUInt64LE(segment(IDT) + SEGMENT.base),
    idtLimit: state.readUInt32LE(segment(IDT) + SEGMENT.limit),
    rip: state.readBigUInt64LE(QEMU_STATE.rip),
    rsp: state.readBigUInt64LE(QEMU_STATE.rsp),
    rflags: state.readBigUInt64LE(QEMU_STATE.rflags),
    cpl: state.readUInt32LE(segment(CS)) & 3,
    halted: undefined,
  };
}
