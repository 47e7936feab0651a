import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type NatsConnection, type NodeConnectionOptions } from '@nats-io/transport-node';
import type { FleetConfig } from './config.ts';
import { connectError } from './connect-error.ts';
import { readCredentials, readTls } from './credentials.ts';

/** Between two attempts, in ms; the second is drawn by lot, so that a fleet does not come back in one moment. */
const RETRY_MS = 500;
const JITTER_MS = 1_000;
const CONNECT_MS = 5_000;
/** A server that leaves this many pings without an answer is gone. */
const PINGS = 2;

/** How this host stands to its fleet's server. */
export interface LinkState {
  readonly connected: boolean;
  /** Since when, in ms of the clock that it was given. */
  readonly sinceMs: number;
  /** Of the server, while connected. */
  readonly server?: string;
  /** Why it is not connected, as far as is known. */
  readonly error?: string;
}

/**
 * What a connection takes.
 * @throws DomschedError `config-invalid` for credentials or certificates that cannot be used
 */
export function connectionOptions(config: FleetConfig, name = config.name): NodeConnectionOptions {
  const tls = readTls(config);
  return {
    servers: [...config.servers],
    name: `domsched ${name}`,
    ...(config.credentials !== undefined && { authenticator: readCredentials(config.credentials) }),
    ...(tls !== undefined && { tls }),
    timeout: CONNECT_MS,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RETRY_MS,
    reconnectJitter: JITTER_MS,
    reconnectJitterTLS: JITTER_MS,
    // A password may be changed at the server and here one after the other.
    ignoreAuthErrorAbort: true,
    pingInterval: (config.lease * 1000) / PINGS,
    maxPingOut: PINGS,
    noEcho: true,
    // So that the server can forbid hosts to read each other's answers.
    inboxPrefix: `_INBOX_${name}`,
  };
}

/** A connection to one of the fleet's servers, made again for as long as it takes. */
export class FleetLink {
  readonly #options: NodeConnectionOptions;
  readonly #now: () => number;
  readonly #onUp: (connection: NatsConnection) => void;
  readonly #onChange: (state: LinkState) => void;
  readonly #ended = new AbortController();
  #connection: NatsConnection | undefined;
  #state: LinkState;
  readonly #running: Promise<void>;
  readonly #tried = Promise.withResolvers<void>();

  /**
   * @param onUp called with a connection that is new, to subscribe; subscriptions outlive a lost server
   * @param onChange called whenever it is connected or cut off
   */
  constructor(
    options: NodeConnectionOptions,
    now: () => number,
    onUp: (connection: NatsConnection) => void,
    onChange: (state: LinkState) => void,
  ) {
    this.#options = options;
    this.#now = now;
    this.#onUp = onUp;
    this.#onChange = onChange;
    this.#state = { connected: false, sinceMs: now() };
    this.#running = this.#run();
  }

  /** Settles once it was connected, or once that failed. */
  get tried(): Promise<void> {
    return this.#tried.promise;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Undefined while cut off: what is said then would only be said late. */
  get connection(): NatsConnection | undefined {
    return this.#state.connected ? this.#connection : undefined;
  }

  async close(): Promise<void> {
    this.#ended.abort();
    const connection = this.#connection;
    // What was published last still goes out, if there is somebody to take it.
    if (this.#state.connected) await Promise.race([connection?.flush().catch(() => {}), sleep(1_000)]);
    await connection?.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      try {
        const connection = await connect(this.#options);
        this.#connection = connection;
        if (signal.aborted) return await connection.close();
        this.#onUp(connection);
        this.#set({ connected: true, server: connection.getServer() });
        this.#tried.resolve();
        await this.#follow(connection);
        const error = await connection.closed();
        if (error) throw error;
      } catch (error) {
        this.#set({
          connected: false,
          error: connectError(error as Error, [this.#options.servers!].flat()).message,
        });
        this.#tried.resolve();
      }
      this.#connection = undefined;
      const pause = RETRY_MS + Math.random() * JITTER_MS;
      await sleep(pause, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'disconnect') this.#set({ connected: false });
      else if (status.type === 'reconnect') this.#set({ connected: true, server: connection.getServer() });
      else if (status.type === 'error') this.#set({ ...this.#state, error: status.error.message });
    }
  }

  #set(state: Omit<LinkState, 'sinceMs'>): void {
    const before = this.#state;
    const sinceMs = before.connected === state.connected ? before.sinceMs : this.#now();
    this.#state = { ...state, sinceMs };
    if (before.connected !== state.connected) this.#onChange(this.#state);
  }
}
