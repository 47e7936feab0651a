import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import type { KernelMemory, MemoryLayout } from '../contract.ts';
import { ExtractError } from '../error.ts';
import { extractMemory } from './extract.ts';

/** The thread's only messages. The parent answers a request with the bytes, or null. */
export type MemoryAnswer =
  | { readonly asked: { readonly address: bigint; readonly length: number } }
  | { readonly learned: MemoryLayout }
  | {
      readonly refused: {
        readonly code: string;
        readonly message: string;
        readonly details: Readonly<Record<string, unknown>>;
      };
    };

/** Reads a guest's memory in a separate thread, because it may take time and memory; the caller bounds both. */
async function more(address: bigint, length: number): Promise<Uint8Array | null> {
  parentPort!.postMessage({ asked: { address, length } } satisfies MemoryAnswer);
  const [bytes] = (await once(parentPort!, 'message')) as [Uint8Array | null];
  return bytes;
}

let answer: MemoryAnswer;
try {
  answer = { learned: await extractMemory(workerData as KernelMemory, undefined, more) };
} catch (error) {
  if (!(error instanceof ExtractError)) throw error;
  const { code, message, details } = error;
  answer = { refused: { code, message, details } };
}
parentPort!.postMessage(answer);
