import process from 'node:process';
import { DomschedError } from '../../error.ts';
import { FRAME_SIZE, type FrameNumber } from '../../hypervisor/frame.ts';
import type { Domain, VcpuRegisters } from '../../hypervisor/types.ts';
import type { KnownKernel } from '../../layout/registry.ts';
import type { LayoutView } from '../../layout/view.ts';
import { guestVirtual } from '../../memory/address.ts';
import { PagedAddressSpace } from '../../memory/address-space.ts';
import { FIVE_LEVEL, FOUR_LEVEL, kernelTableRoot, pagingMode, tableRoot } from '../../memory/paging.ts';
import type { AddressSpace, PagingMode } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';
import { shellWord } from '../../shell-word.ts';
import { MemoryLayouts } from '../learn/remembered.ts';
import { printable } from '../text.ts';
import { hasBanner, releaseOf, tryRead } from './banner.ts';
import { fromMemory, type Unlearned, type Unmatched } from './from-memory.ts';
import { mappedImage } from './mapped-image.ts';
import { buildIdOf } from './notes.ts';
import { imageStart, isSlide, KERNEL_MAP, SLIDE_ALIGNMENT } from './regions.ts';
import {
  gsConfirms,
  isRelocatable,
  type Observation,
  observe,
  physBases,
  possible,
  slides,
} from './relocation.ts';
import { type FoundBanner, scanImage, scanPhysical } from './scan.ts';
import type { Derivation, IdentifiedKernel, Relocation } from './types.ts';

/** RFLAGS.IF (Intel SDM vol. 1, 3.4.3). */
const INTERRUPT_FLAG = 1n << 9n;
/** The instruction HLT (Intel SDM vol. 2A). */
const HLT = 0xf4;
const ANOTHER_BUILD = 'it has the banner of a known kernel, but build-id ';
/** Most bytes from an image's banner to what else is in it. */
const IMAGE_REACH = 128 * 2 ** 20;
/** Most bytes of notes that are searched; a kernel has some 500. */
const MAX_NOTES = 64 * 1024;

/**
 * Finds out which known kernel runs in a domain, from the guest's memory alone: its banner, its build-id if it has one,
 * and a relocation that independent facts agree on. A version is never used.
 *
 * @param besides places ({@link placeOf}) of kernels in memory without registers that are not the wanted one
 * @throws DomschedError `layout-unknown` when the kernel is none of `known`, with the command that makes its layout;
 *   `kernel-unidentified` when no kernel is found; `domain-gone`, `host-unreachable`
 */
export async function identify(
  domain: Domain<FrameNumber>,
  known: readonly KnownKernel[],
  besides: ReadonlySet<number> = new Set(),
): Promise<IdentifiedKernel> {
  const all = ((await domain.registers?.read()) ?? []).map((vcpu) =>
    vcpu.halted === undefined ? { ...vcpu, halted: standsBehindHalt(domain, vcpu) } : vcpu,
  );
  const kernel = await identifyBy(domain, known, all, besides);
  const elsewhere = all.filter((vcpu) => hasHaltedForGood(vcpu) && isRunBy(kernel, [vcpu]) === false);
  return { ...kernel, crashed: elsewhere.length };
}

/** Physical address of a kernel's banner, which no other kernel in memory has; undefined if it is not mapped. */
export function placeOf({ layout, slide, space }: IdentifiedKernel): number | undefined {
  const symbol = layout.symbol('linux_banner');
  const where = symbol === undefined ? undefined : space.probe(guestVirtual(symbol + slide));
  return where === undefined || isFault(where) ? undefined : where.frame * FRAME_SIZE + where.offset;
}

async function identifyBy(
  domain: Domain<FrameNumber>,
  known: readonly KnownKernel[],
  all: readonly VcpuRegisters[],
  besides: ReadonlySet<number>,
): Promise<IdentifiedKernel> {
  // A kernel that crashed has halted its CPUs for good; the kernel that replaced it (`kexec`) runs on the rest.
  const awake = all.filter((vcpu) => !hasHaltedForGood(vcpu));
  const registers = awake.length > 0 ? awake : all;
  const spaces = registers.length > 0 ? addressSpaces(domain, registers) : [];
  if (registers.length > 0 && spaces.length === 0) {
    throw unidentified(domain, 'none of its CPUs is in 64-bit mode: it is still booting, or no 64-bit Linux');
  }
  const remembered = new MemoryLayouts();
  const isKnown = (banner: string) => known.some((kernel) => kernel.banner === banner);
  const failures: string[] = [];
  const banners: string[] = [];
  const unmatched: Unmatched[] = [];
  const images = new Map<number, readonly string[]>();
  for (const space of spaces) {
    const seen = observe(space, registers);
    const place = seen.imageStart === undefined ? undefined : space.probe(guestVirtual(seen.imageStart));
    // CPUs that run different programs have tables of their own, all with the same image.
    const before = place === undefined || isFault(place) ? undefined : images.get(place.frame);
    const found =
      before ??
      (seen.imageStart === undefined
        ? []
        : scanImage(space, seen.imageStart, (banner) => isKnown(banner) || remembered.has(banner)));
    // Where nothing is found, the tables may be of a program that has just ended.
    if (place !== undefined && !isFault(place) && found.length > 0) images.set(place.frame, found);
    const identified = await matching(known, found, space, seen, failures);
    if (identified !== undefined) return identified;
    banners.push(...found);
    const confirmIn = (layout: LayoutView, banner: string) => confirm(layout, banner, space, seen, failures);
    if (found.length > 0)
      unmatched.push({ space, start: seen.imageStart!, banners: found, confirm: confirmIn });
  }
  if (spaces.length === 0) {
    for (const found of scanPhysical(domain)) {
      if (besides.has(found.address)) continue;
      const identified = await fromImage(domain, known, found, failures);
      if (identified !== undefined) return identified;
      banners.push(found.banner);
      // The image of a kernel that was passed over has copies of its banner too.
      const isCopy = [...besides].some((place) => Math.abs(place - found.address) < IMAGE_REACH);
      const image = unmatched.length === 0 && !isCopy ? mappedImage(domain, found.address) : undefined;
      if (image === undefined) continue;
      const confirmIn = (layout: LayoutView, banner: string) =>
        inImage(domain, layout, banner, image.space, failures);
      unmatched.push({ ...image, banners: [found.banner], confirm: confirmIn });
    }
  }
  const named = banners.find(isKnown) ?? banners[0];
  // Another build of a known kernel is an unknown kernel.
  if (banners.some(isKnown) && !(failures.length > 0 && failures.every(isAnotherBuild))) {
    throw unknown(domain, known, named, failures);
  }
  const learned = await fromMemory(domain, unmatched, remembered);
  if (!('why' in learned)) return learned;
  throw unknown(domain, known, named, failures, learned);
}

/**
 * Finds where a domain's kernel is in memory, known or not.
 * @throws DomschedError `kernel-unidentified`, `domain-gone`, `host-unreachable`
 */
export async function kernelImage(
  domain: Domain<FrameNumber>,
): Promise<{ readonly space: AddressSpace; readonly start: bigint }> {
  const all = (await domain.registers?.read()) ?? [];
  for (const space of addressSpaces(domain, all)) {
    const start = imageStart(space);
    if (start !== undefined && scanImage(space, start, () => true).length > 0) return { space, start };
  }
  for (const { address } of all.length > 0 ? [] : scanPhysical(domain)) {
    const image = mappedImage(domain, address);
    if (image !== undefined) return image;
  }
  throw unidentified(domain, 'no kernel was found in its memory: it is still booting, or no Linux');
}

/** Whether a vCPU waits for an interrupt with interrupts off: only a reset or another kernel wakes it. */
export function hasHaltedForGood({ halted, rflags }: VcpuRegisters): boolean {
  return halted === true && (rflags & INTERRUPT_FLAG) === 0n;
}

/** Whether the instruction before the next one of a vCPU is HLT. */
function standsBehindHalt(domain: Domain<FrameNumber>, vcpu: VcpuRegisters): boolean {
  if (vcpu.cpl !== 0) return false;
  const before = guestVirtual(BigInt.asUintN(64, vcpu.rip - 1n));
  return addressSpaces(domain, [vcpu]).some((space) => tryRead(space, before, 1)?.[0] === HLT);
}

/**
 * Whether a vCPU's own page tables lead to the very bytes of a kernel that was identified before.
 * @returns undefined if the domain has no vCPU in 64-bit mode
 */
export function isRunBy(kernel: IdentifiedKernel, vcpus: readonly VcpuRegisters[]): boolean | undefined {
  const symbol = kernel.layout.symbol('linux_banner');
  if (symbol === undefined || vcpus.length === 0) return undefined;
  const banner = guestVirtual(symbol + kernel.slide);
  const own = kernel.space.probe(banner);
  const spaces = addressSpaces(kernel.space.domain, vcpus);
  if (spaces.length === 0) return undefined;
  return (
    !isFault(own) &&
    spaces.some((space) => {
      const found = space.probe(banner);
      return !isFault(found) && found.frame === own.frame && found.offset === own.offset;
    })
  );
}

/** Possible address spaces of the kernel, by the CPUs' CR3: with page-table isolation CR3 may be the program's. */
function addressSpaces(domain: Domain<FrameNumber>, registers: readonly VcpuRegisters[]): AddressSpace[] {
  const found = new Map<string, AddressSpace>();
  for (const vcpu of registers) {
    let mode: PagingMode;
    try {
      mode = pagingMode(vcpu, domain.frames.physicalBits);
    } catch (error) {
      // A CPU that is not up yet does not exclude the others.
      if ((error as { code?: string }).code !== 'guest-inconsistent') throw error;
      continue;
    }
    for (const root of [tableRoot(vcpu.cr3), kernelTableRoot(vcpu.cr3)]) {
      const key = `${mode.split.length} ${root}`;
      if (!found.has(key)) found.set(key, new PagedAddressSpace(domain, mode, root));
    }
  }
  return [...found.values()];
}

async function matching(
  known: readonly KnownKernel[],
  banners: readonly string[],
  space: AddressSpace,
  seen: Observation,
  failures: string[],
): Promise<IdentifiedKernel | undefined> {
  for (const kernel of known) {
    if (kernel.banner === null || !banners.includes(kernel.banner)) continue;
    const layout = await kernel.load();
    const identified = confirm(layout, kernel.banner, space, seen, failures);
    if (identified !== undefined) return identified;
  }
  return undefined;
}

/** Confirms that this very kernel is in memory at a place that independent facts agree on. */
function confirm(
  layout: LayoutView,
  banner: string,
  space: AddressSpace,
  seen: Observation,
  failures: string[],
): IdentifiedKernel | undefined {
  const bannerSymbol = layout.symbol('linux_banner');
  if (bannerSymbol === undefined) return undefined;
  const derived = slides(layout, space, seen);
  for (const slide of new Set(derived.map(({ value }) => value))) {
    if (!possible(layout, slide)) continue;
    if (!hasBanner(space, guestVirtual(bannerSymbol + slide), banner)) continue;
    // The banner is there, so this kernel is or was here: from now on a contradiction is worth reporting.
    const gs = gsConfirms(layout, space, seen, slide);
    const votes = derived.filter(({ value }) => value === slide);
    if (gs !== undefined) votes.push(gs);
    const against = derived.filter(({ value }) => value !== slide);
    if (against.length > 0) {
      failures.push(
        `its address is ${hex(slide)} by ${names(votes)}, but ${hex(against[0]!.value)} by ${names(against)}`,
      );
      continue;
    }
    if (votes.length < 2) {
      failures.push(`its address is known by ${names(votes)} alone, and no second fact confirms it`);
      continue;
    }
    const bases = physBases(layout, space, slide);
    const physBase = agreed(bases, space, failures);
    if (physBase === undefined) continue;
    const buildId = readBuildId(layout, space, slide);
    if (layout.kernel.buildId !== null && buildId !== null && buildId !== layout.kernel.buildId) {
      failures.push(`${ANOTHER_BUILD}${buildId} instead of ${layout.kernel.buildId}`);
      continue;
    }
    const own = kernelSpace(layout, space, slide, banner);
    return confirmed(layout, own, banner, buildId, { slide, physBase }, [...votes, ...bases]);
  }
  return undefined;
}

function confirmed(
  layout: LayoutView,
  space: AddressSpace,
  banner: string,
  buildId: string | null,
  where: Relocation,
  derivations: readonly Derivation[],
): IdentifiedKernel {
  const { release } = layout.kernel;
  return { layout, space, release, banner, buildId, ...where, derivations, crashed: 0 };
}

function agreed(bases: readonly Derivation[], space: AddressSpace, failures: string[]): bigint | undefined {
  const noted = bases[1];
  if (bases.length < 2 || noted === undefined) {
    failures.push('where its image is in memory cannot be told');
    return undefined;
  }
  // Page tables of a Xen PV guest hold machine frames, so they do not show the guest's own physical addresses.
  if (space.domain.frames.space === 'machine') return noted.value;
  if (bases[0]!.value === noted.value) return noted.value;
  failures.push(
    `its image is moved by ${hex(bases[0]!.value)} by ${bases[0]!.from}, but by ${hex(noted.value)} by ${noted.from}`,
  );
  return undefined;
}

/**
 * The address space under the kernel's own tables. Those of a CPU usually belong to a program, and are freed and reused
 * when it ends.
 */
function kernelSpace(layout: LayoutView, space: AddressSpace, slide: bigint, banner: string): AddressSpace {
  const table = kernelTable(layout);
  const symbol = layout.requireSymbol('linux_banner');
  if (table === undefined) return space;
  const where = space.probe(guestVirtual(table + slide));
  if (isFault(where)) return space;
  const own = new PagedAddressSpace(space.domain, space.mode, where.frame * FRAME_SIZE + where.offset);
  return hasBanner(own, guestVirtual(symbol + slide), banner) ? own : space;
}

/** Link-time address of the kernel's topmost table. */
function kernelTable(layout: LayoutView): bigint | undefined {
  // "x86/boot/64: Rename init_level4_pgt and early_level4_pgt", 4.13; swapper_pg_dir is another name of the same table.
  return layout.symbol('init_top_pgt') ?? layout.symbol('init_level4_pgt') ?? layout.symbol('swapper_pg_dir');
}

/** The build-id in the guest's own notes; null when the kernel has none. */
function readBuildId(layout: LayoutView, space: AddressSpace, slide: bigint): string | null {
  const start = layout.symbol('__start_notes');
  const stop = layout.symbol('__stop_notes');
  if (start === undefined || stop === undefined || stop <= start || stop - start > MAX_NOTES) return null;
  const notes = tryRead(space, guestVirtual(start + slide), Number(stop - start));
  return notes === undefined ? null : buildIdOf(notes);
}

/**
 * For memory without registers: assumes that a banner is a known kernel's own, computes from it where the kernel's page
 * tables are, and confirms through them.
 */
async function fromImage(
  domain: Domain<FrameNumber>,
  known: readonly KnownKernel[],
  { banner, address }: FoundBanner,
  failures: string[],
): Promise<IdentifiedKernel | undefined> {
  for (const kernel of known) {
    if (kernel.banner !== banner) continue;
    const identified = atPhysical(domain, await kernel.load(), banner, address, failures);
    if (identified !== undefined) return identified;
  }
  return undefined;
}

/** As {@link atPhysical}, for an image found without its layout; the banner found may be another one in it. */
function inImage(
  domain: Domain<FrameNumber>,
  layout: LayoutView,
  banner: string,
  space: AddressSpace,
  failures: string[],
): IdentifiedKernel | undefined {
  const symbol = layout.symbol('linux_banner');
  const slide = slides(layout, space, observe(space, []))[0]?.value;
  if (symbol === undefined || slide === undefined) return undefined;
  const where = space.probe(guestVirtual(symbol + slide));
  if (isFault(where)) return undefined;
  return atPhysical(domain, layout, banner, where.frame * FRAME_SIZE + where.offset, failures);
}

function atPhysical(
  domain: Domain<FrameNumber>,
  layout: LayoutView,
  banner: string,
  address: number,
  failures: string[],
): IdentifiedKernel | undefined {
  const bannerSymbol = layout.symbol('linux_banner');
  const table = kernelTable(layout);
  if (bannerSymbol === undefined || table === undefined) return undefined;
  const load = BigInt(address) - (bannerSymbol - KERNEL_MAP);
  if (load % (isRelocatable(layout) ? SLIDE_ALIGNMENT : 0x1000n) !== 0n) return undefined;
  const root = Number(table - KERNEL_MAP + load);
  if (root < 0) return undefined;
  for (const split of [FOUR_LEVEL, FIVE_LEVEL]) {
    const mode: PagingMode = {
      split,
      physicalBits: domain.frames.physicalBits,
      noExecute: true,
      largePages: [2, 3],
    };
    const space = new PagedAddressSpace(domain, mode, root);
    const seen: Observation = {
      registers: [],
      imageStart: observe(space, []).imageStart,
      divideErrorHandler: undefined,
    };
    const derived = slides(layout, space, seen);
    const slide = derived[0]?.value;
    if (slide === undefined || !(slide === 0n || isSlide(slide))) continue;
    if (!hasBanner(space, guestVirtual(bannerSymbol + slide), banner)) continue;
    const bases = physBases(layout, space, slide);
    // The banner's place is the second derivation here: the tables must lead to the very bytes we found.
    const physBase = agreed(bases, space, failures);
    if (physBase === undefined || physBase !== load - slide) continue;
    const buildId = readBuildId(layout, space, slide);
    if (layout.kernel.buildId !== null && buildId !== null && buildId !== layout.kernel.buildId) {
      failures.push(`${ANOTHER_BUILD}${buildId} instead of ${layout.kernel.buildId}`);
      continue;
    }
    const place: Derivation = { of: 'physBase', from: 'place of the banner', value: load - slide };
    return confirmed(layout, space, banner, buildId, { slide, physBase }, [...derived, place, ...bases]);
  }
  return undefined;
}

function unknown(
  domain: Domain<FrameNumber>,
  known: readonly KnownKernel[],
  banner: string | undefined,
  failures: readonly string[],
  unlearned?: Unlearned,
): DomschedError {
  const { name, kernelFile, assumption } = domain.identity;
  const assumed = assumption === undefined ? '' : `; ${assumption}`;
  if (banner === undefined) {
    const nothing = 'no kernel was found in its memory: it is still booting, or no Linux';
    return unidentified(domain, (failures[0] ?? nothing) + assumed);
  }
  const release = printable(releaseOf(banner));
  const details = { domain: name, release, banner: printable(banner), failures };
  const others = failures.filter((failure) => !isAnotherBuild(failure));
  const contradiction =
    failures.length === 0 && known.some((kernel) => kernel.banner === banner)
      ? 'its memory is not where its page tables say'
      : others[0];
  if (contradiction !== undefined) {
    return new DomschedError(
      'kernel-unidentified',
      `${name} runs Linux ${release}, but ${contradiction}${assumed}`,
      details,
    );
  }
  const other = known.some((kernel) => kernel.release === release)
    ? 'the known layout of that release is of another build; '
    : '';
  const { why, buildId } = unlearned ?? { buildId: null };
  // Servers are asked by what the guest claims, which is safe: the layout is proved on the guest all the same.
  const served = buildId !== null && (process.env.DEBUGINFOD_URLS ?? '').trim() !== '';
  return new DomschedError(
    'layout-unknown',
    `${name} runs Linux ${release}, whose layout is not known${why === undefined ? '' : `, and ${why}`}: ` +
      `${other}make it with domsched extract ${shellWord(`/usr/lib/debug/boot/vmlinux-${release}`)}, out of the package with its ` +
      'debug information' +
      (kernelFile === undefined ? '' : ` (it was started from ${printable(kernelFile)})`) +
      (served ? `; or with domsched extract --build-id ${buildId}, by DEBUGINFOD_URLS` : ''),
    { ...details, buildId },
  );
}

function isAnotherBuild(failure: string): boolean {
  return failure.startsWith(ANOTHER_BUILD);
}

function unidentified(domain: Domain<FrameNumber>, why: string): DomschedError {
  const { name } = domain.identity;
  return new DomschedError('kernel-unidentified', `${name}: ${why}`, { domain: name });
}

function names(derivations: readonly Derivation[]): string {
  return derivations.map(({ from }) => from).join(' and ');
}

function hex(value: bigint): string {
  return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}
