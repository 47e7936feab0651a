/** What a client of the daemon says on its control socket. */
import { createConnection } from 'node:net';
import path from 'node:path';
import pino from 'pino';
import { ControlServer } from '../../../runtime/control/server.ts';
import { Operator } from '../../../runtime/daemon/operator.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { FakeDaemon, fakeGuest } from '../../runtime/daemon/fake-daemon.ts';
import { scratchFolder } from '../scratch-file.ts';

/** Turns of the event loop without a word, after which the client goes: the server is in the same process. */
const QUIET_TURNS = 64;
/** Bytes that the server may answer to one input. */
const MOST_ANSWER = 2 ** 20;

/** A server that is there keeps the process: without an input for so long it goes. */
const IDLE_MS = 1_000;

let served: Promise<ControlServer> | undefined;
let idle: NodeJS.Timeout | undefined;
/** What the server caught that is no error of ours. */
let caught: unknown;

async function serve(): Promise<ControlServer> {
  const directory = scratchFolder();
  const guest = await fakeGuest('one', { comm: 'pi', state: 'ready' }, { comm: 'pi2', state: 'ready' });
  const fake = await FakeDaemon.of([guest], { entries: [], directory });
  await fake.start();
  const serves = (connect: readonly string[]) => new Operator(fake.daemon, async () => {}, '1.2.3', connect);
  const log = pino({ level: 'silent' });
  log.error = ({ err }: { err?: unknown }) => {
    caught = err;
  };
  return ControlServer.listen(path.join(directory, 'control'), serves, log);
}

function message(method: string, params?: unknown): string {
  const text = JSON.stringify({ jsonrpc: '2.0', id: 1, method, ...(params !== undefined && { params }) });
  return `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

export function seeds(): Buffer[] {
  const target = { domain: 'one', process: 'pi', timeout: 0, dryRun: true };
  return [
    message('status', { connect: [] }),
    message('ps', { connect: [], threads: true }) + message('domains', { connect: [] }),
    message('hold', { connect: [], ...target }),
    message('renice', { connect: [], ...target, nice: 5 }),
    message('watch'),
    message('no such method'),
  ].map((text) => Buffer.from(text));
}

/** @returns the answers; null when there were none @throws DomschedError for an answer that refuses */
export async function read(bytes: Buffer): Promise<string | null> {
  served ??= serve();
  const server = await served;
  clearTimeout(idle);
  const socket = createConnection(server.path);
  caught = undefined;
  let answer = '';
  let quiet = 0;
  socket.setEncoding('utf8');
  socket.on('error', () => undefined);
  socket.on('data', (text) => {
    answer += text;
    quiet = 0;
  });
  socket.write(bytes);
  await new Promise<void>((resolve) => {
    socket.on('close', () => resolve());
    const turn = () => {
      quiet += 1;
      if (quiet > QUIET_TURNS) socket.destroy();
      if (!socket.destroyed) setImmediate(turn);
    };
    turn();
  });
  idle = setTimeout(() => {
    served = undefined;
    void server.close();
  }, IDLE_MS);
  if (caught !== undefined) throw new Error('the server failed', { cause: caught });
  if (answer.length > MOST_ANSWER) throw new Error(`${answer.length} bytes of answers`);
  if (answer.includes('"error"')) throw new DomschedError('usage', 'refused by the server', {});
  return answer === '' ? null : answer;
}
