import { Worker } from 'node:worker_threads';
import type { KernelMemory, MemoryLayout } from '../../../extractor/contract.ts';
import { DomschedError } from '../../error.ts';
import { printable } from '../text.ts';

/**
 * In ms. A kernel takes half a second of CPU time; in a dom0 under an emulator, which counts as its own the time that it
 * waits for its host, a hundred times as much.
 */
const LIMITS: LearnLimits = { cpuMs: 60_000, allMs: 600_000 };
const CHECK_MS = 250;
/** MiB of heap besides the image; a real kernel's types take some 40. */
const HEAP = { maxOldGenerationSizeMb: 160, maxYoungGenerationSizeMb: 6, stackSizeMb: 4 };

/** How long a kernel's tables may take to read. */
interface LearnLimits {
  /** CPU time of the thread: a busy host makes it no longer. */
  readonly cpuMs: number;
  /** By the clock, for a thread that does not say what it has used. */
  readonly allMs: number;
}

/** Answers of the thread, see extractor/memory/worker.ts. */
type LearnerAnswer =
  | { readonly asked: { address: bigint; length: number } }
  | { readonly learned: MemoryLayout }
  | { readonly refused: { code: string; message: string; details: Record<string, unknown> } };

/** Reads bytes of the running kernel that are not in the copied image; null if there are none. */
type ReadWord = (address: bigint, length: number) => Uint8Array | null;
/** Most bytes of one question (a word) and most questions; only a lying guest makes the thread ask for more. */
const MAX_ASKED = 8;
const MAX_QUESTIONS = 16;

/**
 * The extractor, run as a thread: it takes memory and returns a layout as data. It is started instead of imported, so
 * that the runtime holds none of its code, and a guest's tables can cost only bounded time and memory of that thread.
 */
const EXTRACTOR = new URL(
  `../../../extractor/memory/worker.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`,
  import.meta.url,
);

let last: Promise<unknown> = Promise.resolve();

/**
 * Makes a layout from a kernel's image in memory. They run one at a time, because the images of a host full of unknown
 * guests would not fit.
 *
 * @param copy copies the image when its turn has come; its bytes are given away
 * @param more reads a word of the kernel that is not in the copy
 * @param limits another than the usual time
 * @throws DomschedError `layout-unknown` if the kernel does not say enough about itself, with `details.missing`
 */
export function learn(
  copy: () => Promise<KernelMemory>,
  more: ReadWord,
  limits = LIMITS,
): Promise<MemoryLayout> {
  const mine = last.then(async () => run(await copy(), more, limits));
  last = mine.catch(() => undefined);
  return mine;
}

async function run(memory: KernelMemory, more: ReadWord, limits: LearnLimits): Promise<MemoryLayout> {
  const answer = await new Promise<Exclude<LearnerAnswer, { asked: unknown }>>((resolve, reject) => {
    const worker = new Worker(EXTRACTOR, {
      workerData: memory,
      transferList: memory.parts.map(({ bytes }) => bytes.buffer as ArrayBuffer),
      resourceLimits: HEAP,
    });
    const begin = performance.now();
    const timer = setInterval(async () => {
      const isLate = performance.now() - begin > limits.allMs;
      // A thread that has ended has no answer.
      const used = isLate ? undefined : await worker.cpuUsage().catch(() => undefined);
      const usedMs = used === undefined ? 0 : (used.user + used.system) / 1000;
      if (isLate || usedMs > limits.cpuMs) end(() => reject(tooMuch(memory.name, 'time')));
    }, CHECK_MS);
    const end = (settle: () => void): void => {
      clearInterval(timer);
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
