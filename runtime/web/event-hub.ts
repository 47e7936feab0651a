import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { Tick } from '../tick/tick.ts';
import { LineEncoder } from '../trace/encode.ts';
import { Replay } from './replay.ts';

/** Pages that are served at once. */
export const MOST_CLIENTS = 32;
/**
 * A page that is slower than this many waiting bytes is sent the whole state once it is ready, instead of each step.
 */
const MOST_WAITING = 4 * 2 ** 20;
/** A page that was cut off reconnects after this time, in ms. */
const RETRY_MS = 1000;

interface Client {
  readonly response: ServerResponse;
  isBehind: boolean;
}

/** Sends every tick to every page that listens, as server-sent events. */
export class EventHub {
  /** Distinguishes ticks of this run of the daemon from those of an earlier one. */
  readonly #session = randomUUID().slice(0, 8);
  readonly #replay = new Replay();
  readonly #clients = new Set<Client>();
  #last: Tick | undefined;

  get isFull(): boolean {
    return this.#clients.size >= MOST_CLIENTS;
  }

  publish(tick: Tick): void {
    this.#last = tick;
    const event = this.#event(tick.tick, this.#replay.push(tick));
    for (const client of this.#clients) {
      if (client.isBehind) continue;
      client.response.write(event);
      if (client.response.writableLength > MOST_WAITING) this.#letCatchUp(client);
    }
  }

  /**
   * Answers with events until the client leaves.
   * @param lastId id of the last event that the client got over an earlier connection
   */
  attach(response: ServerResponse, lastId?: string): void {
    const client: Client = { response, isBehind: false };
    this.#clients.add(client);
    response.on('close', () => this.#clients.delete(client));
    response.on('error', () => this.#clients.delete(client));
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write(`retry: ${RETRY_MS}\n\n`);
    for (const { tick, text } of this.#missing(lastId)) response.write(this.#event(tick, text));
    if (response.writableLength > MOST_WAITING) this.#letCatchUp(client);
  }

  /** Ends all connections. */
  close(): void {
    for (const { response } of this.#clients) response.end();
    this.#clients.clear();
  }

  #missing(lastId: string | undefined): Iterable<{ tick: number; text: string }> {
    const [session, tick] = lastId?.split('.') ?? [];
    const known = session === this.#session ? this.#replay.since(Number(tick)) : undefined;
    return known ?? this.#replay.all();
  }

  #letCatchUp(client: Client): void {
    client.isBehind = true;
    client.response.once('drain', () => {
      client.isBehind = false;
      const tick = this.#last;
      if (tick === undefined) return;
      client.response.write(this.#event(tick.tick, JSON.stringify(new LineEncoder().encode(tick))));
    });
  }

  #event(tick: number, text: string): string {
    return `id: ${this.#session}.${tick}\ndata: ${text}\n\n`;
  }
}
