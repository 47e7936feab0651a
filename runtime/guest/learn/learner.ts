import { Worker } from 'node:worker_threads';
import type { KernelMemory, MemoryLayout } from '../../../extractor/contract.ts';
import { DomschedError } from '../../error.ts';
import { printable } from '../text.ts';

/** A kernel takes half a second of CPU time; a busy host may take its time. */
const MAX_MS = 30_000;
/** MiB of heap, besides the image: a real kernel's types take some 40. */
const HEAP = { maxOldGenerationSizeMb: 160, maxYoungGenerationSizeMb: 6, stackSizeMb: 4 };

/** What the thread answers with: see extractor/memory/worker.ts. */
type LearnerAnswer =
  | { readonly asked: { address: bigint; length: number } }
  | { readonly learned: MemoryLayout }
  | { readonly refused: { code: string; message: string; details: Record<string, unknown> } };

/** Brings bytes of the running kernel that are not in the image that was given away; null where there are none. */
type ReadWord = (address: bigint, length: number) => Uint8Array | null;
/** More than one word nobody needs; more words than these a lying guest alone makes it ask for. */
const MAX_ASKED = 8;
const MAX_QUESTIONS = 16;

/**
 * The extractor as a thread of its own: memory goes in, a layout comes out, as data. It is started, not imported, so that
 * the runtime holds none of its code, and whatever a guest's tables say costs bounded time and room, and nobody else's.
 */
const EXTRACTOR = new URL(
  `../../../extractor/memory/worker.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`,
  import.meta.url,
);

let last: Promise<unknown> = Promise.resolve();

/**
 * Makes a layout of a kernel's image in memory. One at a time: the images of a host full of unknown guests would not fit.
 *
 * @param copy brings the image when its turn has come; its bytes are given away
 * @param more reads a word of the kernel that is not in the copy
 * @throws DomschedError `layout-unknown` where the kernel does not say enough of itself, with `details.missing`
 */
export function learn(copy: () => Promise<KernelMemory>, more: ReadWord): Promise<MemoryLayout> {
  const mine = last.then(async () => run(await copy(), more));
  last = mine.catch(() => undefined);
  return mine;
}

async function run(memory: KernelMemory, more: ReadWord): Promise<MemoryLayout> {
  const answer = await new Promise<Exclude<LearnerAnswer, { asked: unknown }>>((resolve, reject) => {
    const worker = new Worker(EXTRACTOR, {
      workerData: memory,
      transferList: memory.parts.map(({ bytes }) => bytes.buffer as ArrayBuffer),
      resourceLimits: HEAP,
    });
    const timer = setTimeout(() => end(() => reject(tooMuch(memory.name, 'time'))), MAX_MS);
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      settle();
      void worker.terminate();
    };
    let questions = 0;
    worker.on('message', (message: LearnerAnswer) => {
      if (!('asked' in message)) return end(() => resolve(message));
      const { address, length } = message.asked;
      if (++questions > MAX_QUESTIONS || length > MAX_ASKED) {
        return end(() => reject(tooMuch(memory.name, 'questions')));
      }
      try {
        worker.postMessage(more(address, length));
      } catch (error) {
        // The guest is gone.
        end(() => reject(error));
      }
    });
    worker.once('error', (error: Error & { code?: string }) =>
      end(() => reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? tooMuch(memory.name, 'memory') : error)),
    );
    worker.once('exit', () => end(() => reject(tooMuch(memory.name, 'patience'))));
  });
  if ('learned' in answer) return answer.learned;
  const { message, details } = answer.refused;
  throw new DomschedError('layout-unknown', printable(message), { ...details });
}

function tooMuch(name: string, what: string): DomschedError {
  return new DomschedError(
    'layout-unknown',
    `the tables in the ${printable(name)} take more ${what} than those of any kernel`,
    { missing: 'sense' },
  );
}
