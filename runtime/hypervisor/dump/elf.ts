import { FRAME_SIZE } from '../frame.ts';
import type { VcpuRegisters } from '../types.ts';
import { ASSUMED_EFER, type DumpContent, type DumpSegment } from './content.ts';
import type { DumpFile } from './file.ts';
import { readXenCore } from './xen-core.ts';

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;
const SECTION_HEADER = 64;
const ET_CORE = 4;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** e_phnum when there are more: then section header 0 has the count in sh_info. */
const PN_XNUM = 0xffff;
const MAX_PROGRAM_HEADERS = 1_000_000;

/** One ELF note. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly content: Buffer;
}

/** A section by name, with what its header says. */
export interface ElfSection {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

/**
 * Reads an ELF core: QEMU's `dump-guest-memory`, a crash kernel's `/proc/vmcore`, or `xl dump-core`.
 * @throws DomschedError `dump-corrupt`
 */
export function readElfCore(file: DumpFile): DumpContent {
  const header = file.block(0, ELF_HEADER, 'ELF header');
  const is64 = header[4] === 2 && header[5] === 1;
  if (!is64 || header.readUInt16LE(16) !== ET_CORE || header.readUInt16LE(18) !== EM_X86_64) {
    file.corrupt('ELF header, which is not that of a 64-bit x86 core,', 0);
  }
  const sections = readSections(file, header);
  if (sections.some(({ name }) => name === '.xen_pages')) return readXenCore(file, sections);
  const segments: DumpSegment[] = [];
  const registers: VcpuRegisters[] = [];
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
    if (type === PT_LOAD && size > 0) {
      if (physical + size > 2 ** 52 || offset + size > file.size) file.corrupt(`segment ${i}`, offset);
      const segment = wholeFrames(physical, size, offset);
      if (segment.count > 0) segments.push(segment);
    } else if (type === PT_NOTE) {
      for (const note of parseNotes(file.block(offset, size, 'notes'), file, offset)) {
        if (note.name === 'QEMU' && note.type === 0)
          registers.push(readQemuNote(note.content, registers.length, file));
      }
    }
  }
  if (segments.length === 0) file.corrupt('program header table without memory', table);
  return {
    format: 'elf-core',
    space: 'guest',
    segments,
    registers: registers.length > 0 ? registers : undefined,
  };
}

/** The whole frames of a run of physical memory. */
export function wholeFrames(physical: number, size: number, offset: number): DumpSegment {
  const first = Math.ceil(physical / FRAME_SIZE);
  const skipped = first * FRAME_SIZE - physical;
  return { first, count: Math.max(0, Math.floor((size - skipped) / FRAME_SIZE)), offset: offset + skipped };
}

/** Notes of a PT_NOTE segment or SHT_NOTE section. */
export function parseNotes(bytes: Buffer, file: DumpFile, offset: number): ElfNote[] {
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

function programHeaderCount(file: DumpFile, header: Buffer): number {
  const count = header.readUInt16LE(56);
  if (count !== PN_XNUM) return count;
  const sections = Number(header.readBigUInt64LE(40));
  return file.block(sections, SECTION_HEADER, 'section header 0').readUInt32LE(44);
}

function readSections(file: DumpFile, header: Buffer): ElfSection[] {
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

/** Places in the structure QEMUCPUState (QEMU target/i386/arch_dump.c), a format of files, not of a kernel. */
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

function readQemuNote(state: Buffer, vcpu: number, file: DumpFile): VcpuRegisters {
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
    // Older QEMUs end before it.
    kernelGsBase:
      state.length >= QEMU_STATE.kernelGs + 8 ? state.readBigUInt64LE(QEMU_STATE.kernelGs) : undefined,
    tssBase: state.readBigUInt64LE(segment(TR) + SEGMENT.base),
    idtBase: state.readBigUInt64LE(segment(IDT) + SEGMENT.base),
    idtLimit: state.readUInt32LE(segment(IDT) + SEGMENT.limit),
    rip: state.readBigUInt64LE(QEMU_STATE.rip),
    rsp: state.readBigUInt64LE(QEMU_STATE.rsp),
    rflags: state.readBigUInt64LE(QEMU_STATE.rflags),
    cpl: state.readUInt32LE(segment(CS)) & 3,
    halted: false,
  };
}
