import { createReadStream } from 'node:fs';
import type { z } from 'zod';
import { DomschedError } from '../error.ts';
import { printable } from '../guest/text.ts';
import type { Tick } from '../tick/tick.ts';
import { LineDecoder } from './decode.ts';
import type { TraceHeader } from './line.ts';
import { TICK_LINE, TRACE_HEADER } from './schema.ts';
import { olderPart } from './trace-file.ts';

/** Limit of one line; 131,072 processes need less. */
const MAX_LINE_BYTES = 64 * 2 ** 20;

/** A trace on disk. */
export interface Trace {
  readonly header: TraceHeader;
  /** Every tick, starting with the older part. @throws DomschedError `trace-invalid`, with the line */
  ticks(): AsyncGenerator<Tick>;
}

/**
 * Opens a trace, with its older part if there is one. A last line that is cut off is left out: the writer was killed.
 * @throws DomschedError `trace-invalid` if the file is no trace or cannot be read
 */
export async function openTrace(file: string): Promise<Trace> {
  const header = await headerOf(file);
  const older = await headerOf(olderPart(file)).catch(() => undefined);
  const belongs = older?.id === header.id && older.part === header.part - 1;
  const parts = belongs ? [olderPart(file), file] : [file];
  return {
    header: belongs ? older : header,
    async *ticks() {
      const decoder = new LineDecoder();
      for (const part of parts) yield* ticksOf(part, decoder);
    },
  };
}

async function headerOf(file: string): Promise<TraceHeader> {
  for await (const { text } of linesOf(file)) return parse(TRACE_HEADER, text, file, 1);
  throw new DomschedError('trace-invalid', `${printable(file)} is empty`, { file });
}

async function* ticksOf(file: string, decoder: LineDecoder): AsyncGenerator<Tick> {
  // Delays each line by one, to know which is the last.
  let held: { text: string; number: number } | undefined;
  let isComplete = true;
  for await (const { text, number, isEnded } of linesOf(file)) {
    if (held !== undefined) yield decoder.decode(parse(TICK_LINE, held.text, file, held.number));
    held = number === 1 ? undefined : { text, number };
    isComplete = isEnded;
  }
  if (held === undefined) return;
  let last: Tick;
  try {
    last = decoder.decode(parse(TICK_LINE, held.text, file, held.number));
  } catch (error) {
    if (!isComplete) return;
    throw error;
  }
  yield last;
}

function parse<T>(schema: z.ZodType<T>, text: string, file: string, line: number): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(file, line, 'it is no JSON', cause);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw invalid(file, line, `${issue?.path.join('.')}: ${issue?.message}`, result.error);
}

function invalid(file: string, line: number, why: string, cause?: unknown): DomschedError {
  return new DomschedError(
    'trace-invalid',
    `${printable(file)}, line ${line}, is not of a domsched-trace/1: ${printable(why)}`,
    { file, line },
    { cause },
  );
}

interface NumberedLine {
  readonly text: string;
  /** Counts from 1. */
  readonly number: number;
  /** Whether a newline follows. */
  readonly isEnded: boolean;
}

/** Numbered lines; never holds more than one in memory. */
async function* linesOf(file: string): AsyncGenerator<NumberedLine> {
  let pieces: Buffer[] = [];
  let length = 0;
  let number = 1;
  try {
    for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
      let start = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
        pieces.push(chunk.subarray(start, end));
        yield { text: Buffer.concat(pieces).toString('utf8'), number: number++, isEnded: true };
        pieces = [];
        length = 0;
        start = end + 1;
      }
      pieces.push(chunk.subarray(start));
      length += chunk.length - start;
      if (length > MAX_LINE_BYTES) throw invalid(file, number, 'it is too long');
    }
  } catch (error) {
    if (error instanceof DomschedError) throw error;
    const { message } = error as Error;
    throw new DomschedError(
      'trace-invalid',
      `the trace cannot be read: ${message}`,
      { file },
      { cause: error },
    );
  }
  if (length > 0) yield { text: Buffer.concat(pieces).toString('utf8'), number, isEnded: false };
}
