import type { TickLine } from '../../trace/line.ts';

export type Connected = 'connecting' | 'live' | 'lost';

/** A browser does not retry after a refusal; we do, after this many ms. */
const RETRY_MS = 1500;

/** Listens to the daemon for as long as the page is open. */
export class Connection {
  readonly #onLine: (line: TickLine, session: string) => void;
  readonly #onState: (state: Connected) => void;
  #source: EventSource | undefined;

  constructor(onLine: (line: TickLine, session: string) => void, onState: (state: Connected) => void) {
    this.#onLine = onLine;
    this.#onState = onState;
    this.#open();
  }

  #open(): void {
    this.#onState(this.#source === undefined ? 'connecting' : 'lost');
    const source = new EventSource('/events');
    this.#source = source;
    source.onopen = () => this.#onState('live');
    source.onmessage = ({ data, lastEventId }: MessageEvent<string>) => {
      const [session = ''] = lastEventId.split('.');
      this.#onLine(JSON.parse(data) as TickLine, session);
    };
    source.onerror = () => {
      this.#onState('lost');
      if (source.readyState !== EventSource.CLOSED) return;
      source.close();
      setTimeout(() => this.#open(), RETRY_MS);
    };
  }
}
