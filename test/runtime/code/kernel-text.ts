import { closeSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { cachedKernels } from '../../../kernels/cache.ts';
import { projectDirectory } from '../../../kernels/paths.ts';
import type { KernelText } from '../../../runtime/code/inquiry.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';

/** Every kernel at hand that has a layout, with the text of its file. */
export async function kernelTexts(): Promise<{ release: string; layout: LayoutView; text: KernelText }[]> {
  const known = await knownKernels();
  const found = [];
  for (const { release, vmlinux } of cachedKernels()) {
    const layout = await known.find((candidate) => candidate.release === release)?.load();
    if (layout === undefined || !layout.has('task_struct', 'frozen')) continue;
    found.push({ release, layout, text: textOf(layout, vmlinux) });
  }
  return found;
}

/** The variants of our guest with O(1) queues, as {@link kernelTexts}. */
export async function o1Texts(): Promise<{ release: string; layout: LayoutView; text: KernelText }[]> {
  const known = await knownKernels();
  const found = [];
  for (const variant of ['base', 'preempt', 'schedstats'] as const) {
    const release = variant === 'base' ? '2.6.16.33' : `2.6.16.33-${variant}`;
    const file = path.join(projectDirectory, 'kernels/o1/build', variant, 'vmlinux-2.6.16.33');
    const layout = await known.find((candidate) => candidate.release === release)!.load();
    found.push({ release, layout, text: textOf(layout, file) });
  }
  return found;
}

function textOf(layout: LayoutView, file: string): KernelText {
  const read = segmentsOf(file);
  return { layout, slide: 0n, read, readData: read };
}

/** Reads bytes of an ELF file by their linked addresses (ELF-64 Object File Format, program header). */
function segmentsOf(file: string): KernelText['read'] {
  const bytes = (offset: number, length: number) => {
    const descriptor = openSync(file, 'r');
    const buffer = Buffer.alloc(length);
    readSync(descriptor, buffer, 0, length, offset);
    closeSync(descriptor);
    return buffer;
  };
  const header = bytes(0, 64);
  const size = header.readUInt16LE(54);
  const table = bytes(Number(header.readBigUInt64LE(32)), size * header.readUInt16LE(56));
  const segments = Array.from({ length: table.length / size }, (_, index) => {
    const at = (offset: number) => table.readBigUInt64LE(index * size + offset);
    return { offset: at(8), start: at(16), end: at(16) + at(32) };
  });
  return (address, length) => {
    const segment = segments.find(({ start, end }) => address >= start && address < end);
    if (segment === undefined) return new Uint8Array(0);
    const left = Number(segment.end - address);
    return bytes(Number(segment.offset + address - segment.start), Math.min(length, left));
  };
}
