/** What QEMU answers: the protocol itself, and the texts of its monitor. */
import { createServer, type Socket } from 'node:net';
import path from 'node:path';
import { parseMemoryMap } from '../../../runtime/hypervisor/qemu/memory-map.ts';
import { QmpClient } from '../../../runtime/hypervisor/qemu/qmp-client.ts';
import { parseRegisters } from '../../../runtime/hypervisor/qemu/registers.ts';
import { memoryMap } from '../../runtime/hypervisor/fake-qemu.ts';
import { GREETING } from '../../runtime/hypervisor/qmp-server.ts';
import { scratchFolder } from '../scratch-file.ts';

let answer: Buffer = Buffer.alloc(0);
let served: Promise<string> | undefined;

/** A NUL ends what the server says before it waits for the next command. */
const TURN = '\0';
/** Turns of the event loop without a word, after which the server closes: the client is in the same process. */
const QUIET_TURNS = 64;

/** A server that says the next part of the input at the start and after each command, and closes after the last. */
function serve(): Promise<string> {
  served ??= new Promise((resolve) => {
    const file = path.join(scratchFolder(), 'qmp.sock');
    const server = createServer((socket: Socket) => {
      const parts = answer.toString('latin1').split(TURN);
      const speak = () => {
        const part = Buffer.from(parts.shift() ?? '', 'latin1');
        turns = 0;
        if (parts.length === 0) socket.end(part);
        else socket.write(part);
      };
      let turns = 0;
      const wait = () => {
        turns += 1;
        if (turns > QUIET_TURNS) socket.end();
        if (!socket.writableEnded) setImmediate(wait);
      };
      socket.on('error', () => undefined);
      socket.on('data', speak);
      speak();
      wait();
    });
    server.unref();
    server.listen(file, () => resolve(file));
  });
  return served;
}

export function seeds(): Buffer[] {
  const greeting = `${GREETING}${TURN}{"return": {}, "id": 1}\r\n${TURN}`;
  const event = '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}\r\n';
  const status = '{"return": {"status": "paused", "running": false}, "id": 2}\r\n';
  return [
    Buffer.from(greeting + event + status),
    Buffer.from(greeting.replaceAll(', ', ',\n  ') + event.replaceAll(': ', ':\n') + status),
    Buffer.from(memoryMap([0, 0x8000_0000], [0x1_0000_0000, 0x4000_0000])),
    Buffer.from(
      'CPU#0\nCR0=80050033 CR2=00007f0000000000 CR3=0000000002a10000 CR4=000006f0\nEFER=0000000000000d01\n',
    ),
  ];
}

export async function read(bytes: Buffer): Promise<void> {
  answer = bytes;
  const text = bytes.toString('utf8');
  for (const parse of [parseRegisters, (map: string) => parseMemoryMap(map, new Set(['ram0']))]) {
    try {
      parse(text);
    } catch (error) {
      if ((error as { code?: unknown }).code === undefined) throw error;
    }
  }
  const client = await QmpClient.connect(await serve());
  try {
    await client.execute('query-status');
  } finally {
    client.close();
  }
}
