import { randomBytes } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import process from 'node:process';
import Table from 'cli-table3';
import { DomschedError } from '../error.ts';
import type { Learned } from '../guest/identify/types.ts';
import { MemoryLayouts } from '../guest/learn/remembered.ts';
import { jsonText, printable } from '../guest/text.ts';
import { listing } from '../layout/picture/listing.ts';
import { outline } from '../layout/picture/outline.ts';
import { stripPicture } from '../layout/picture/strip.ts';
import { svgPicture } from '../layout/picture/svg.ts';
import { kernelOf, knownKernels, type RegisteredKernel } from '../layout/registry.ts';
import type { LayoutView, StructView } from '../layout/view.ts';
import { reasonsAgainst, type Ways, waysOfLayout } from '../surgeon/ways.ts';
import { PLAIN } from './plain-table.ts';

export interface LayoutsOptions {
  json?: true;
  svg?: string;
}

/** Runs `domsched layouts`. @throws DomschedError `usage`, `layout-unknown`, `layout-absent-member` */
export async function layouts(
  kernelName: string | undefined,
  structName: string | undefined,
  options: LayoutsOptions,
): Promise<void> {
  if (options.svg !== undefined && structName === undefined) {
    throw new DomschedError(
      'usage',
      '--svg draws one structure: name the kernel and it, e.g. layouts 6.1.0-… rq.',
    );
  }
  const known = await allKernels();
  if (kernelName === undefined)
    return print(options.json ? jsonText(known.map(kernelFacts)) : kernelTable(known));
  const kernel = choose(kernelName, known);
  const layout = await kernel.load();
  if (structName === undefined) {
    const structs = layout.structNames.map((name) => structFacts(layout.requireStruct(name)));
    return print(
      options.json ? jsonText(structs) : `${structTable(structs)}${waysText(waysOfLayout(layout))}`,
    );
  }
  const struct = layout.requireStruct(structName);
  if (options.svg !== undefined) await writeSvg(options.svg, svgPicture(struct, kernel));
  if (options.json) return print(jsonText(structDetails(struct, layout)));
  if (options.svg === undefined) print(`${listing(struct, kernel)}\n${terminalPicture(struct)}`);
}

/** A kernel from a store, or one that was read from a guest's memory before. */
interface ListedKernel extends RegisteredKernel {
  readonly learned?: Learned;
}

/** First the kernels of the stores, then those from memory that no store has. */
async function allKernels(): Promise<ListedKernel[]> {
  const known: ListedKernel[] = await knownKernels();
  const fromMemory = new MemoryLayouts();
  for (const { layout, guest, date } of fromMemory.all()) {
    const kernel = kernelOf(layout);
    if (known.some(({ buildId, banner }) => (buildId ?? banner) === (kernel.buildId ?? kernel.banner)))
      continue;
    const place = { folder: kernel.release, store: fromMemory.directory };
    known.push({ ...kernel, ...place, learned: { guest, date } });
  }
  return known;
}

/** Finds the one kernel with this folder or release, or whose build-id begins so. */
function choose(name: string, known: readonly ListedKernel[]): ListedKernel {
  const exact = known.filter((kernel) => kernel.folder === name);
  const found =
    exact.length > 0
      ? exact
      : known.filter(
          ({ release, buildId }) =>
            release === name || (name.length >= 4 && buildId?.startsWith(name.toLowerCase())),
        );
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const places = found.map(({ folder, store }) => join(store, folder)).join(', ');
    const text = `${found.length} kernels match ${name}: ${places}. Name one by its folder or build-id.`;
    throw new DomschedError('layout-unknown', text, { name });
  }
  const folders = known.map(({ folder }) => folder).join(', ');
  const others = known.length === 0 ? 'None is known yet' : `Known: ${folders}`;
  const text = `No layout is known as ${name}. ${others}; domsched extract FILE adds one.`;
  throw new DomschedError('layout-unknown', text, { name });
}

function kernelFacts(kernel: ListedKernel) {
  const { release, buildId, banner, arch, schedulers, folder, store, source, producer, learned } = kernel;
  const facts = { release, buildId, banner, arch, schedulers, ...source, folder, store };
  return { ...facts, learned: learned ?? null, producer: producer.version };
}

function kernelTable(known: readonly ListedKernel[]): string {
  if (known.length === 0) return 'No layout is known yet. Make one: domsched extract vmlinux\n';
  const table = new Table({ head: ['kernel', 'schedulers', 'build-id', 'engine', 'source'], ...PLAIN });
  for (const { folder, schedulers, buildId, source, learned } of known) {
    table.push([
      folder,
      schedulers.join(' '),
      buildId?.slice(0, 16) ?? '-',
      source.dwarfVersion === null ? source.engine : `${source.engine} ${source.dwarfVersion}`,
      learned ? `guest ${printable(learned.guest)}'s memory, ${learned.date.slice(0, 10)}` : source.file,
    ]);
  }
  return `${table.toString()}\n`;
}

/** How threads of its guests can be held, judging by its structures. */
function waysText(ways: Ways): string {
  const { techniques } = ways;
  const lines = [
    `By its structures, processes of its guests can be held by: ${techniques.join(', ') || 'nothing'}.`,
    ...reasonsAgainst(ways),
    'What its code has to prove besides is seen in a guest: domsched domains.',
  ];
  return `${lines.join('\n')}\n`;
}

function structFacts(struct: StructView) {
  const found = outline(struct);
  return {
    struct: struct.name,
    sourceName: struct.sourceName,
    kind: struct.kind,
    size: struct.size,
    members: found.memberCount,
    holes: found.holeCount,
    holeBytes: found.holeBytes,
    paddingBytes: found.paddingBytes,
  };
}

function structTable(structs: readonly ReturnType<typeof structFacts>[]): string {
  const table = new Table({
    head: ['structure', 'bytes', 'members', 'holes', 'hole bytes', 'padding'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
    ...PLAIN,
  });
  for (const { struct, size, members, holes, holeBytes, paddingBytes } of structs) {
    table.push([struct, size, members, holes, holeBytes, paddingBytes]);
  }
  return `${table.toString()}\n`;
}

function structDetails(struct: StructView, layout: LayoutView) {
  const { pieces } = outline(struct);
  return {
    kernel: layout.kernel.release,
    ...structFacts(struct),
    members: [...struct.members].map(([name, member]) => ({ name, ...member })),
    anonymous: struct.anonymous,
    holes: pieces
      .filter(({ kind }) => kind === 'hole')
      .map(({ role, offset, size }) => ({ role, offset, size })),
  };
}

function terminalPicture(struct: StructView): string {
  const { isTTY, columns = 80 } = process.stdout;
  const colour = isTTY === true && process.stdout.hasColors() && !process.env.NO_COLOR;
  return stripPicture(struct, { scale: columns >= 7 + 2 * 64 + 5 ? 2 : 1, colour });
}

/** Writes the file completely or not at all. */
async function writeSvg(path: string, text: string): Promise<void> {
  if (path === '-') return print(text);
  const fresh = join(dirname(path), `.${basename(path)}.${randomBytes(8).toString('hex')}`);
  try {
    await writeFile(fresh, text, { flag: 'wx' });
    await rename(fresh, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new DomschedError(
      'usage',
      `Cannot write ${path} (${code}): name a file in a folder that you may write.`,
      { path },
      { cause: error },
    );
  } finally {
    await rm(fresh, { force: true });
  }
}

function print(text: string): void {
  process.stdout.write(text);
}
