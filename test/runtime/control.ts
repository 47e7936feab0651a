import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pino from 'pino';
import { ControlServer } from '../../runtime/control/server.ts';
import type { Tick } from '../../runtime/tick/tick.ts';

/** What stands for a daemon: a control socket that has ticks and nothing else. */
export interface StandInDaemon extends AsyncDisposable {
  /** To be DOMSCHED_RUNTIME_DIR. */
  readonly directory: string;
  /** Whether anybody watches. */
  readonly watched: boolean;
  tick(tick: Tick): void;
}

export async function fakeDaemon(): Promise<StandInDaemon> {
  const directory = await mkdtemp(path.join(tmpdir(), 'control-'));
  const serves = () => {
    throw new Error('it is asked for ticks alone');
  };
  const server = await ControlServer.listen(
    path.join(directory, 'control'),
    serves,
    pino({ level: 'silent' }),
  );
  return {
    directory,
    get watched() {
      return server.watched;
    },
    tick: (tick) => server.tick(tick),
    async [Symbol.asyncDispose]() {
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
