/** Types in BPF's format. */
import { extractBtf } from '../../../extractor/btf/engine.ts';
import { seeds as blobs } from '../../extractor/btf/fuzz.ts';

export const seeds: () => Promise<readonly Buffer[]> = blobs;

export function read(bytes: Buffer): void {
  extractBtf(bytes, 'fuzz.btf', { structs: 'all', enums: [], required: [], constants: ['A'] });
}
