import { connect, type NatsConnection } from '@nats-io/transport-node';
import { z } from 'zod';
import { DomschedError } from '../error.ts';
import { ASK, MOST_ANSWER } from './asks.ts';
import { type FleetConfig, HOST_NAME } from './config.ts';
import { connectionOptions } from './link.ts';
import { PolicyStore } from './policy-store.ts';

/** The longest wait for a first answer, and after each one for the next, in ms. */
const FIRST_MS = 3_000;
const NEXT_MS = 700;
const MOST_ANSWERS = 20_000;

const ANSWER = z.looseObject({
  v: z.literal(1),
  host: z.string().regex(HOST_NAME),
  version: z.string().max(64),
});
const problem = z.string().max(2_000);

/** A host's word on a policy. */
export interface HostVerdict {
  readonly host: string;
  readonly version: string;
  /** What it cannot do. */
  readonly problems: readonly string[];
}

/** An operator's connection to the fleet. */
export class FleetClient implements AsyncDisposable {
  readonly #connection: NatsConnection;
  readonly policies: PolicyStore;

  private constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.policies = new PolicyStore(connection);
  }

  /** @throws DomschedError `host-unreachable` if no server answers; `config-invalid` */
  static async open(config: FleetConfig): Promise<FleetClient> {
    const options = connectionOptions(config);
    try {
      const connection = await connect({ ...options, reconnect: false, ignoreAuthErrorAbort: false });
      return new FleetClient(connection);
    } catch (cause) {
      const text = `no server of the fleet answers (${config.servers.join(', ')}): ${(cause as Error).message}`;
      throw new DomschedError('host-unreachable', text, { servers: config.servers }, { cause });
    }
  }

  /** Asks every host that is there what it cannot do of a policy. */
  async check(policy: string): Promise<HostVerdict[]> {
    const answers = await this.#ask('check', { policy }, z.object({ problems: z.array(problem).max(100) }));
    return answers.map(({ host, version, problems }) => ({ host, version, problems }));
  }

  /** Asks every host that is there for its processes. What they say is checked by whoever shows it. */
  processes() {
    const shape = z.object({ rows: z.array(z.unknown()), left: z.number(), errors: z.array(z.unknown()) });
    return this.#ask('ps', {}, shape);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close();
  }

  /** One answer of each host, by name; answers that are not as they should be are left out. */
  async #ask<T extends z.ZodObject>(what: string, question: object, shape: T) {
    const found = new Map<string, z.output<typeof ANSWER> & z.output<T>>();
    try {
      const answers = await this.#connection.requestMany(
        `${ASK}.${what}`,
        JSON.stringify({ v: 1, ...question }),
        { strategy: 'stall', maxWait: FIRST_MS, stall: NEXT_MS, maxMessages: MOST_ANSWERS },
      );
      for await (const { data } of answers) {
        if (data.length > MOST_ANSWER) continue;
        const answer = read(data);
        const known = ANSWER.safeParse(answer);
        const rest = shape.safeParse(answer);
        if (known.success && rest.success) found.set(known.data.host, { ...known.data, ...rest.data });
      }
    } catch (cause) {
      const { message } = cause as Error;
      if (!/no responders/i.test(message))
        throw new DomschedError('host-unreachable', `the fleet cannot be asked: ${message}`, {}, { cause });
    }
    return [...found.values()].sort((a, b) => (a.host < b.host ? -1 : 1));
  }
}

function read(data: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
  } catch {
    return undefined;
  }
}
