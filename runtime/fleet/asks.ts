import type { Msg, NatsConnection } from '@nats-io/transport-node';
import { z } from 'zod';
import type { AccountSample } from '../blame/sample.ts';
import { version } from '../version.ts';
import { BLAME_QUESTION } from './blame-word.ts';
import type { Blames } from './blames.ts';
import { MOST_POLICY } from './stored-policy.ts';

/** Where operators ask all hosts at once: `domsched.ask.<what>`. */
export const ASK = 'domsched.ask';
/** Most bytes of an answer: what a server takes by default, and room for its envelope. */
export const MOST_ANSWER = 900 * 1024;
const MOST_PROBLEMS = 20;
/** Answers that are being made at a time; further questions wait for nobody and get none. */
const MOST_AT_ONCE = 4;

const CHECK = z.object({ v: z.literal(1), policy: z.string().max(MOST_POLICY) });
const PS = z.object({ v: z.literal(1) });

/** Nothing is answered to what this host is not asked. */
type Answer = (asked: unknown) => Promise<object | undefined>;

/** What a host answers to. */
export interface FleetDuties {
  /** @returns what this host's version cannot do of a policy */
  checkPolicy(policy: string): readonly string[];
  /** Rows of `ps`, the busiest first. */
  processes(): Promise<{ readonly rows: readonly object[]; readonly errors: readonly object[] }>;
  /** What host and guests have accounted. */
  accounts(): Promise<AccountSample>;
}

/** Answers operators' questions. Nothing that is asked changes anything. */
export function answerAsks(
  connection: NatsConnection,
  host: string,
  duties: Omit<FleetDuties, 'accounts'>,
  blames: Blames,
): void {
  let open = 0;
  const serve = (what: string, answer: Answer) => {
    const subject = `${ASK}.${what}`;
    connection.subscribe(subject, {
      callback: (error, message) => {
        // Nobody asks by what the server delivers out of a stream: whoever has it do so may not ask.
        if (
          error !== null ||
          message.subject !== subject ||
          open >= MOST_AT_ONCE ||
          message.data.length > 2 * MOST_POLICY
        )
          return;
        open++;
        respond(message, answer).finally(() => {
          open--;
        });
      },
    });
  };
  serve('check', async (asked) => {
    const { policy } = CHECK.parse(asked);
    return { problems: duties.checkPolicy(policy).slice(0, MOST_PROBLEMS) };
  });
  serve('ps', async (asked) => {
    PS.parse(asked);
    const { rows, errors } = await duties.processes();
    let count = rows.length;
    while (count > 0 && JSON.stringify(rows.slice(0, count)).length > MOST_ANSWER / 2)
      count = Math.floor(count / 2);
    return { rows: rows.slice(0, count), left: rows.length - count, errors: errors.slice(0, MOST_PROBLEMS) };
  });
  serve('blame', async (asked) => {
    const question = BLAME_QUESTION.parse(asked);
    return question.do === 'begin' ? blames.begin(question) : blames.end(question.id);
  });

  async function respond(message: Msg, answer: Answer): Promise<void> {
    let text: string;
    try {
      const answered = await answer(message.json());
      if (answered === undefined) return;
      text = JSON.stringify({ v: 1, host, version: version(), ...answered });
    } catch {
      // Not a question of ours: whoever asked hears nothing, and nobody can make us say more.
      return;
    }
    if (text.length <= MOST_ANSWER && !connection.isClosed()) message.respond(text);
  }
}
