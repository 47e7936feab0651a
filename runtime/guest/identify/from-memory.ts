import type { KernelMemory } from '../../../extractor/contract.ts';
import { DomschedError } from '../../error.ts';
import type { FrameNumber } from '../../hypervisor/frame.ts';
import type { Domain } from '../../hypervisor/types.ts';
import { type KnownKernel, kernelOf } from '../../layout/registry.ts';
import type { LayoutView } from '../../layout/view.ts';
import { guestVirtual } from '../../memory/address.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';
import { layoutsElsewhere, type TakenLayout } from '../learn/elsewhere.ts';
import { hasSeal, marksOf } from '../learn/evidence.ts';
import { learn } from '../learn/learner.ts';
import {
  type KeptLayout,
  MEMORY_LAYOUT_FORMAT,
  type MemoryLayouts,
  type Remembered,
} from '../learn/remembered.ts';
import { tryRead } from './banner.ts';
import { copyImage } from './scan.ts';
import type { IdentifiedKernel, Learned } from './types.ts';

/** A kernel's image in memory that matches no known layout. */
export interface Unmatched {
  readonly space: AddressSpace;
  /** First mapped page of the image. */
  readonly start: bigint;
  readonly banners: readonly string[];
  /** Confirms that a layout's kernel is in memory at a place that independent facts agree on. */
  readonly confirm: (layout: LayoutView, banner: string) => IdentifiedKernel | undefined;
}

/** A kernel that does not describe itself well enough. */
export interface Unlearned {
  readonly why: string;
  readonly buildId: string | null;
}

/**
 * Identifies a kernel that has no extracted layout: by a layout that was read from the same kernel before, here or on
 * another host, or else by its own tables.
 *
 * @returns the kernel, or `why` it does not describe itself well enough, for people, and the build-id that it shows
 */
export async function fromMemory(
  domain: Domain<FrameNumber>,
  images: readonly Unmatched[],
  remembered: MemoryLayouts,
): Promise<IdentifiedKernel | Unlearned> {
  let unlearned: Unlearned = { why: 'its image was not found in its memory', buildId: null };
  const tried = new Set<number>();
  for (const image of images) {
    const place = placeOfStart(image);
    if (place !== undefined && tried.has(place)) continue;
    for (const banner of image.banners) {
      for (const kept of remembered.of(banner)) {
        const kernel = await asBefore(image, kept);
        if (kernel !== undefined) return kernel;
      }
    }
    // Who looks at a dump has no hurry, and no fleet.
    for (const banner of domain.registers === undefined ? [] : image.banners) {
      const taken = await layoutsElsewhere()?.take(banner);
      const kernel = taken && (await asOthersSay(image, taken, remembered));
      if (kernel !== undefined) return kernel;
    }
    const learned = await anew(domain, image, remembered);
    if (!('why' in learned)) return learned;
    unlearned = learned;
    // Another CPU's tables lead to the same image, unless these were of a program that has ended meanwhile.
    if (place !== undefined && placeOfStart(image) === place) tried.add(place);
  }
  return unlearned;
}

function placeOfStart({ space, start }: Unmatched): number | undefined {
  space.domain.tick();
  const where = space.probe(guestVirtual(start));
  return isFault(where) ? undefined : where.frame;
}

/**
 * A copy of a guest's kernel, under the name that messages and layouts call it by.
 * @param whole see {@link copyImage}
 */
export async function kernelMemory(
  domain: string,
  { space, start }: Pick<Unmatched, 'space' | 'start'>,
  whole = true,
): Promise<KernelMemory> {
  return { name: `memory of ${domain.replaceAll('/', '_')}`, parts: await copyImage(space, start, whole) };
}

/** The kernel of a remembered entry, if this guest has exactly the bytes that it was read from. */
async function asBefore(
  image: Unmatched,
  { entry, seal }: KeptLayout,
): Promise<IdentifiedKernel | undefined> {
  const { guest, date, evidence } = entry;
  const kernel = await confirmed(image, entry.layout);
  if (kernel === undefined || !(await hasSeal(kernel.space, kernel.slide, evidence, seal))) return undefined;
  return { ...kernel, learned: { guest, date }, trial: { accept: () => layoutsElsewhere()?.give(entry) } };
}

/** The kernel of a layout that somebody else gave: kept once the guest has proved it. */
async function asOthersSay(
  image: Unmatched,
  { entry, accept, refuse }: TakenLayout,
  remembered: MemoryLayouts,
): Promise<IdentifiedKernel | undefined> {
  try {
    const { guest, date, evidence, hash } = entry;
    const kernel = await confirmed(image, entry.layout);
    const marks = kernel && (await marksOf(kernel.space, kernel.slide, evidence));
    if (marks?.hash !== hash) return undefined;
    const keep = () => {
      remembered.keep({ entry, seal: marks.seal });
      accept();
    };
    return { ...kernel!, learned: { guest, date }, trial: { accept: keep, refuse } };
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code !== 'layout-unknown') throw error;
    refuse(error.message);
    return undefined;
  }
}

async function anew(
  domain: Domain<FrameNumber>,
  image: Unmatched,
  remembered: MemoryLayouts,
): Promise<IdentifiedKernel | Unlearned> {
  const { name } = domain.identity;
  try {
    const { layout, evidence } = await learn(
      () => kernelMemory(name, image, false),
      (address, length) => tryRead(image.space, guestVirtual(address), length) ?? null,
    );
    const kernel = await confirmed(image, layout);
    if (kernel === undefined) {
      return { why: 'what its memory says of it contradicts itself', buildId: layout.kernel.buildId };
    }
    const marks = await marksOf(kernel.space, kernel.slide, evidence);
    const learned: Learned = { guest: name, date: new Date().toISOString() };
    if (marks === null) return { ...kernel, learned };
    const { hash, seal } = marks;
    const entry: Remembered = { format: MEMORY_LAYOUT_FORMAT, ...learned, evidence, hash, layout };
    remembered.keep({ entry, seal });
    return { ...kernel, learned, trial: { accept: () => layoutsElsewhere()?.give(entry) } };
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code !== 'layout-unknown') throw error;
    const { buildId } = error.details;
    return { why: error.message, buildId: typeof buildId === 'string' ? buildId : null };
  }
}

/** What was made of a remembered layout, for as long as that is kept. */
const kernels = new WeakMap<Remembered['layout'], KnownKernel>();

async function confirmed(
  image: Unmatched,
  layout: Remembered['layout'],
): Promise<IdentifiedKernel | undefined> {
  const { banner } = layout.kernel;
  if (banner === null) return undefined;
  const kernel = kernels.get(layout) ?? kernelOf(layout);
  kernels.set(layout, kernel);
  return image.confirm(await kernel.load(), banner);
}
