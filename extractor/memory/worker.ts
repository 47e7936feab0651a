import { parentPort, workerData } from 'node:worker_threads';
import type { KernelMemory, MemoryLayout } from '../contract.ts';
import { ExtractError } from '../error.ts';
import { extractMemory } from './extract.ts';

/** What the thread says: nothing else ever comes out of it. */
export type MemoryAnswer =
  | { readonly learned: MemoryLayout }
  | {
      readonly refused: {
        readonly code: string;
        readonly message: string;
        readonly details: Readonly<Record<string, unknown>>;
      };
    };

/**
 * Reads a guest's memory in a thread of its own: what a guest says may take time and room, and whoever asked bounds both.
 */
let answer: MemoryAnswer;
try {
  answer = { learned: await extractMemory(workerData as KernelMemory) };
} catch (error) {
  if (!(error instanceof ExtractError)) throw error;
  const { code, message, details } = error;
  answer = { refused: { code, message, details } };
}
parentPort!.postMessage(answer);
