import type { Tick } from '../tick/tick.ts';
import { LineDecoder } from '../trace/decode.ts';
import { LineEncoder } from '../trace/encode.ts';
import type { TickLine } from '../trace/line.ts';

/** How much history a page gets when it opens. */
const KEPT_MS = 5 * 60_000;
const KEPT_TICKS = 3_000;
const KEPT_BYTES = 8 * 2 ** 20;

interface KeptLine {
  readonly tick: number;
  readonly ms: number;
  /** The line as JSON. */
  readonly text: string;
}

/**
 * The last minutes as lines: a base state and each line since. Time, number and bytes are bounded, so that a page that
 * opens late sees the past and the daemon does not grow.
 */
export class Replay {
  readonly #encoder = new LineEncoder();
  /** The state after the last dropped line, and that line. */
  readonly #base = new LineDecoder();
  #baseLine: TickLine | undefined;
  readonly #kept: KeptLine[] = [];
  #bytes = 0;

  /** Adds a tick. @returns its line as JSON */
  push(tick: Tick): string {
    const line = this.#encoder.encode(tick);
    const text = JSON.stringify(line);
    this.#kept.push({ tick: tick.tick, ms: tick.ms, text });
    this.#bytes += text.length;
    while (this.#isTooMuch(tick.ms)) this.#drop();
    return text;
  }

  /** Lines for a client without history: a full one and all that follow. */
  *all(): Generator<{ tick: number; text: string }> {
    if (this.#baseLine !== undefined) {
      const { fleet: _, ...line } = this.#baseLine;
      const { fleet } = this.#base;
      const tick = { ...line, domains: this.#base.tickDomains(), ...(fleet && { fleet }) };
      yield { tick: tick.tick, text: JSON.stringify(new LineEncoder().encode(tick)) };
    }
    yield* this.#kept;
  }

  /** Lines after a tick; undefined if that tick is too old or never existed. */
  since(tick: number): readonly { tick: number; text: string }[] | undefined {
    const at = this.#kept.findIndex((kept) => kept.tick === tick);
    return at < 0 ? undefined : this.#kept.slice(at + 1);
  }

  #isTooMuch(now: number): boolean {
    const [oldest] = this.#kept;
    if (oldest === undefined || this.#kept.length === 1) return false;
    return this.#bytes > KEPT_BYTES || this.#kept.length > KEPT_TICKS || now - oldest.ms > KEPT_MS;
  }

  #drop(): void {
    const { text } = this.#kept.shift()!;
    this.#bytes -= text.length;
    this.#baseLine = JSON.parse(text) as TickLine;
    this.#base.apply(this.#baseLine);
  }
}
