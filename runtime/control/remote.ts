import type { Socket } from 'node:net';
import { ErrorCodes, type MessageConnection, ResponseError } from 'vscode-jsonrpc/node';
import type { AccountSample } from '../blame/sample.ts';
import { DomschedError, type DomschedErrorCode } from '../error.ts';
import type { FleetStatus } from '../fleet/status.ts';
import type { ShareEntry } from '../hypervisor/share.ts';
import type { Tick } from '../tick/tick.ts';
import { channel } from './channel.ts';
import type {
  DaemonControl,
  DaemonStatus,
  DomainEntry,
  EditAnswer,
  PsAnswer,
  ReleaseAllAnswer,
  Ticks,
  TicksOptions,
} from './control.ts';
import type { Method, Options } from './schema.ts';

/** Most ticks that wait for a slow reader; beyond that the oldest is dropped. */
const MOST_WAITING = 64;

/** A daemon that has not answered for so long may be stopped, ms. */
const SILENT_MS = 1_000;

/** Errors that do not come from the daemon but from the library, when the connection is lost. */
const LOST: ReadonlySet<number> = new Set([
  ErrorCodes.MessageWriteError,
  ErrorCodes.MessageReadError,
  ErrorCodes.PendingResponseRejected,
  ErrorCodes.ConnectionInactive,
]);

/** Asks the daemon that runs on this host. */
export class RemoteControl implements DaemonControl {
  readonly #socket: Socket;
  readonly #connection: MessageConnection;
  readonly #connect: readonly string[];

  /** @param connect `--connect` values of the domains that are meant; all domains of the daemon when there are none */
  constructor(socket: Socket, connect: readonly string[] = []) {
    this.#socket = socket;
    this.#connect = connect;
    this.#connection = channel(socket);
    this.#connection.listen();
  }

  ps = (options: Options<'ps'> = {}) => this.#request<PsAnswer>('ps', options);
  domains = () => this.#request<DomainEntry[]>('domains', {});
  hold = (options: Options<'hold'>) => this.#request<EditAnswer>('hold', options);
  release = (options: Options<'release'>) => this.#request<EditAnswer>('release', options);
  releaseAll = (options: Options<'releaseAll'> = {}) =>
    this.#request<ReleaseAllAnswer>('releaseAll', options);
  renice = (options: Options<'renice'>) => this.#request<EditAnswer>('renice', options);
  share = (options: Options<'share'>) => this.#request<ShareEntry>('share', options);
  accounts = () => this.#request<AccountSample>('accounts', {});
  status = () => this.#request<DaemonStatus>('status', {});
  fleet = () => this.#request<FleetStatus | null>('fleet', {});
  reload = () => this.#request<void>('reload', {});

  ticks({ signal }: Pick<TicksOptions, 'signal'>): Ticks {
    return Object.assign(this.#ticks(signal), { source: 'daemon' as const });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection.dispose();
    this.#socket.destroy();
  }

  async *#ticks(signal: AbortSignal): AsyncGenerator<Tick> {
    const waiting: Tick[] = [];
    let wake = () => {};
    const listening = this.#connection.onNotification('tick', (tick: Tick) => {
      waiting.push(tick);
      if (waiting.length > MOST_WAITING) waiting.shift();
      wake();
    });
    const onEnd = () => wake();
    signal.addEventListener('abort', onEnd);
    this.#socket.on('close', onEnd);
    try {
      await this.#send('watch', {});
      while (!signal.aborted) {
        const tick = waiting.shift();
        if (tick !== undefined) yield tick;
        else if (this.#socket.destroyed) throw new DomschedError('host-unreachable', 'the daemon ended', {});
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      signal.removeEventListener('abort', onEnd);
      this.#socket.off('close', onEnd);
      listening.dispose();
      if (!this.#socket.destroyed) this.#connection.sendNotification('unwatch').catch(() => undefined);
    }
  }

  #request<T>(method: Method, options: object): Promise<T> {
    return this.#send(method, { ...options, connect: this.#connect });
  }

  /** @throws DomschedError the daemon's error; `host-unreachable` when it ends meanwhile, or is stopped */
  async #send<T>(method: string, parameters: object): Promise<T> {
    const silence = Promise.withResolvers<never>();
    const looks = setInterval(() => {
      this.#whyNoAnswer().then((why) => why && silence.reject(why), silence.reject);
    }, SILENT_MS);
    try {
      return await Promise.race([this.#connection.sendRequest<T>(method, parameters), silence.promise]);
    } catch (error) {
      throw error instanceof DomschedError ? error : errorOf(error);
    } finally {
      clearInterval(looks);
    }
  }

  /** Loaded for a daemon that is silent only. */
  async #whyNoAnswer(): Promise<DomschedError | undefined> {
    const { stoppedDaemon } = await import('./stopped-daemon.ts');
    return stoppedDaemon(this.#socket);
  }
}

function errorOf(error: unknown): DomschedError {
  if (!(error instanceof ResponseError) || LOST.has(error.code)) return ended();
  const { code, details } = (error.data ?? {}) as {
    code?: DomschedErrorCode;
    details?: Record<string, unknown>;
  };
  return new DomschedError(code ?? 'protocol', error.message, details ?? {});
}

function ended(): DomschedError {
  return new DomschedError('host-unreachable', 'the daemon ended; try again', {});
}
