import { connect, type NatsConnection } from '@nats-io/transport-node';
import { z } from 'zod';
import { DomschedError } from '../error.ts';
import { ASK, MOST_ANSWER } from './asks.ts';
import { BLAME_BEGUN, BLAME_FOUND, type BlameBegin } from './blame-word.ts';
import { type FleetConfig, HOST_NAME } from './config.ts';
import { connectError } from './connect-error.ts';
import { connectionOptions } from './link.ts';
import { PolicyStore } from './policy-store.ts';

/** The longest wait for all answers, and after each one for the next, in ms. */
const ALL_MS = 10_000;
const NEXT_MS = 700;
const MOST_ANSWERS = 20_000;
/** Most bytes of all answers together, and most rows of one, which are more than an honest one has room for. */
const MOST_TOLD = 128 << 20;
const MOST_ROWS = 10_000;
/** Most failures of one host that are shown. */
const MOST_FAILURES = 20;

const ANSWER = z.object({
  v: z.literal(1),
  host: z.string().regex(HOST_NAME),
  version: z.string().max(64),
});
const problem = z.string().max(2_000);

/** Answers of hosts to one question. */
interface Answers<T> {
  readonly answers: readonly T[];
  /** What of them is not as it should be, for whoever asked. */
  readonly notes: readonly string[];
}

/** A host's answer, and when it came, in ms of this process's clock. */
interface Heard {
  readonly host: string;
  readonly version: string;
  readonly heardMs: number;
}

/** Those of some values that are as they should be. */
const valid = <T>(shape: z.ZodType<T>, most: number) =>
  z
    .array(z.unknown())
    .max(MOST_ROWS)
    .transform((values) =>
      values.slice(0, most).flatMap((value) => {
        const read = shape.safeParse(value);
        return read.success ? [read.data] : [];
      }),
    );

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

  /** @throws DomschedError as {@link connectError} says; `config-invalid` */
  static async open(config: FleetConfig): Promise<FleetClient> {
    const options = connectionOptions(config);
    try {
      const connection = await connect({ ...options, reconnect: false, ignoreAuthErrorAbort: false });
      return new FleetClient(connection);
    } catch (cause) {
      throw connectError(cause as Error, config.servers);
    }
  }

  /** Asks every host that is there what it cannot do of a policy. Two words in a host's name are both heard. */
  async check(policy: string): Promise<HostVerdict[]> {
    const { answers } = await this.#ask(
      'check',
      { policy },
      z.object({ problems: z.array(problem).max(100) }),
    );
    return [...Map.groupBy(answers, ({ host }) => host)].map(([host, said]) => ({
      host,
      version: said[0]!.version,
      problems: said.flatMap(({ problems }) => problems),
    }));
  }

  /** Asks every host that is there for its processes, and takes what is as `row` and `failure` say. */
  processes<Row, Failed>(row: z.ZodType<Row>, failure: z.ZodType<Failed>) {
    const left = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
    const shape = z.object({ rows: valid(row, MOST_ROWS), left, errors: valid(failure, MOST_FAILURES) });
    return this.#ask('ps', {}, shape);
  }

  /** Has all hosts that are meant find out for whom processes wait. Each answers at once what it begins with. */
  beginBlame(asked: BlameBegin) {
    return this.#ask('blame', { do: 'begin', ...asked }, BLAME_BEGUN);
  }

  /** Asks for what was found since {@link beginBlame}, and ends it. */
  endBlame(id: string) {
    return this.#ask('blame', { do: 'end', id }, BLAME_FOUND);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close();
  }

  /** The answers of all hosts, by name; those that are not as they should be are left out. */
  async #ask<T extends z.ZodType<object>>(
    what: string,
    question: object,
    shape: T,
  ): Promise<Answers<Heard & z.output<T>>> {
    const found: (Heard & z.output<T>)[] = [];
    const notes: string[] = [];
    let wrong = 0;
    const told = await this.#hear(what, question);
    if (told.isMore)
      notes.push(`more than ${MOST_TOLD >> 20} MiB were answered: what came after that is left out`);
    for (const { data, heardMs } of told.answers) {
      const answer = data.length > MOST_ANSWER ? undefined : read(data);
      const known = ANSWER.safeParse(answer);
      const rest = shape.safeParse(answer);
      if (known.success && rest.success) found.push({ ...known.data, ...rest.data, heardMs });
      else wrong++;
    }
    if (wrong > 0)
      notes.push(`${wrong} answers cannot be read, of hosts with another version or of a forger`);
    const twice = [...Map.groupBy(found, ({ host }) => host)].filter(([, said]) => said.length > 1);
    for (const [host] of twice.slice(0, MOST_FAILURES))
      notes.push(`${host}: answered more than once, so one answer is of somebody else`);
    return { answers: found.sort((a, b) => (a.host < b.host ? -1 : a.host > b.host ? 1 : 0)), notes };
  }

  /** All answers as they came. Nothing is read in between: while somebody's is, those of others would be late. */
  async #hear(what: string, question: object) {
    const answers: { readonly data: Uint8Array; readonly heardMs: number }[] = [];
    let bytes = 0;
    try {
      const all = await this.#connection.requestMany(
        `${ASK}.${what}`,
        JSON.stringify({ v: 1, ...question }),
        {
          strategy: 'stall',
          maxWait: ALL_MS,
          stall: NEXT_MS,
          maxMessages: MOST_ANSWERS,
        },
      );
      for await (const { data } of all) {
        bytes += data.length;
        if (bytes > MOST_TOLD) break;
        answers.push({ data, heardMs: performance.now() });
      }
    } catch (cause) {
      const { message } = cause as Error;
      if (!/no responders/i.test(message))
        throw new DomschedError('host-unreachable', `the fleet cannot be asked: ${message}`, {}, { cause });
    }
    return { answers, isMore: bytes > MOST_TOLD };
  }
}

function read(data: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
  } catch {
    return undefined;
  }
}
