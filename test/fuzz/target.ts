import { ExtractError } from '../../extractor/error.ts';
import { DomschedError } from '../../runtime/error.ts';

/** A reader of bytes that we did not write, as a fuzzer calls it. */
export interface FuzzTarget {
  /** Well-formed inputs to begin with. */
  seeds(): readonly Buffer[] | Promise<readonly Buffer[]>;
  /** Reads all that the reader can; throws what the reader throws. Null where there is nothing to read. */
  read(bytes: Buffer): unknown;
}

/**
 * Reads an input. Anything but a result or an error of ours is a bug.
 * @returns the code that it was refused with, `nothing`, or `read`
 * @throws whatever else the reader threw
 */
export async function outcomeOf(target: FuzzTarget, bytes: Buffer): Promise<string> {
  try {
    return (await target.read(bytes)) === null ? 'nothing' : 'read';
  } catch (error) {
    if (!(error instanceof DomschedError || error instanceof ExtractError)) throw error;
    return error.code;
  }
}
