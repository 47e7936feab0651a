import type { Msg, NatsConnection } from '@nats-io/transport-node';
import { z } from 'zod';
import { version } from '../version.ts';
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

/** What a host answers to. */
export interface FleetDuties {
  /** @returns what this host's version cannot do of a policy */
  checkPolicy(policy: string): readonly string[];
  /** Rows of `ps`, the busiest first. */
  processes(): Promise<{ readonly rows: readonly object[]; readonly errors: readonly object[] }>;
}

/** Answers operators' questions. Nothing that is asked changes anything. */
export function answerAsks(connection: NatsConnection, host: string, duties: FleetDuties): void {
  let open = 0;
  const serve = (what: string, answer: (asked: unknown) => Promise<object>) => {
    connection.subscribe(`${ASK}.${what}`, {
      callback: (error, message) => {
        if (error !== null || open >= MOST_AT_ONCE || message.data.length > 2 * MOST_POLICY) return;
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

  async function respond(message: Msg, answer: (asked: unknown) => Promise<object>): Promise<void> {
    let text: string;
    try {
      text = JSON.stringify({ v: 1, host, version: version(), ...(await answer(message.json())) });
    } catch {
      // Not a question of ours: whoever asked hears nothing, and nobody can make us say more.
      return;
    }
    if (text.length <= MOST_ANSWER && !connection.isClosed()) message.respond(text);
  }
}
