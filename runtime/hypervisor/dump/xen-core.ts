import { FRAME_LIMIT, FRAME_SIZE } from '../frame.ts';
import type { VcpuRegisters } from '../types.ts';
import { pvRegisters } from '../xen/registers.ts';
import { PV_CONTEXT } from '../xen/structures.ts';
import type { DumpContent, ElfSection } from './content.ts';
import type { DumpBytes } from './file.ts';
import { PlainPages } from './plain-pages.ts';
import type { DumpRun } from './runs.ts';

const INVALID_FRAME = (1n << 64n) - 1n;
/** Most bytes of a frame table that are read at once. */
const CHUNK = 8 * 1024 * 1024;

/**
 * Reads `xl dump-core`'s format (Xen docs/misc/dump-core-format.txt). Pages of a PV guest are indexed by machine
 * frames, as in the guest's page tables.
 * @throws DomschedError `dump-corrupt`
 */
export function readXenCore(file: DumpBytes, sections: readonly ElfSection[]): DumpContent {
  const find = (name: string) => sections.find((section) => section.name === name);
  const pages = find('.xen_pages')!;
  const p2m = find('.xen_p2m');
  const pfn = find('.xen_pfn');
  const table = p2m ?? pfn;
  if (table === undefined || pages.offset + pages.size > file.size)
    file.corrupt('table of pages', pages.offset);
  const contexts = find('.xen_prstatus');
  return {
    format: 'xen-core',
    space: p2m ? 'machine' : 'guest',
    pages: new PlainPages(file, readFrames(file, table, p2m ? 16 : 8, pages)),
    // For a guest with hardware assistance the section does not hold its registers.
    registers: p2m && contexts ? readContexts(file, contexts) : undefined,
  };
}

/** For each page in the file `.xen_p2m` has a pair of guest and machine frame, `.xen_pfn` a guest frame. */
function readFrames(file: DumpBytes, table: ElfSection, entry: number, pages: ElfSection): DumpRun[] {
  const count = Math.floor(pages.size / FRAME_SIZE);
  if (table.size < count * entry || table.offset + table.size > file.size)
    file.corrupt('table of frames', table.offset);
  const runs: DumpRun[] = [];
  let open: { first: number; count: number; offset: number } | undefined;
  for (let start = 0; start < count; start += CHUNK / entry) {
    const some = Math.min(count - start, CHUNK / entry);
    const bytes = file.block(table.offset + start * entry, some * entry, 'table of frames');
    for (let i = 0; i < some; i++) {
      const value = bytes.readBigUInt64LE((i + 1) * entry - 8);
      if (value === INVALID_FRAME || value >= BigInt(FRAME_LIMIT)) continue;
      const frame = Number(value);
      const offset = pages.offset + (start + i) * FRAME_SIZE;
      if (open && frame === open.first + open.count && offset === open.offset + open.count * FRAME_SIZE) {
        open.count += 1;
        continue;
      }
      open = { first: frame, count: 1, offset };
      runs.push(open);
    }
  }
  return runs;
}

function readContexts(file: DumpBytes, section: ElfSection): VcpuRegisters[] {
  const bytes = file.block(section.offset, section.size, 'registers');
  const count = Math.floor(bytes.length / PV_CONTEXT.size);
  return Array.from({ length: count }, (_, vcpu) => {
    const { buffer, byteOffset } = bytes.subarray(vcpu * PV_CONTEXT.size);
    return pvRegisters(new DataView(buffer, byteOffset, PV_CONTEXT.size), vcpu, false);
  });
}
