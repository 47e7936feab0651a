/**
 * The coordinator of a scheduler inside the guests, a process of its own as domsched's daemon is one: listens on loopback
 * for agents, and tells its parent the port, when all agents are there, and at the end what it counted.
 *
 * `node coordinator.ts GUESTS SUBJECT_GUEST SUBJECT_COMM IGNORE…`
 */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import process from 'node:process';
import { AgentLines, parseAgentLine } from './protocol.ts';
import { type RivalCounts, StrictPriority } from './strict-priority.ts';

export type CoordinatorWord =
  | { readonly port: number }
  | { readonly ready: true }
  | { readonly counts: RivalCounts };

const [guests, guest, comm, ...ignore] = process.argv.slice(2);
const policy = new StrictPriority({ guest: guest!, comm: comm! }, ignore);
const agents = new Map<string, Socket>();
const tell = (word: CoordinatorWord) => process.send!(word);

const server = createServer((socket) => {
  const lines = new AgentLines();
  let name: string | undefined;
  socket.setEncoding('latin1').setNoDelay();
  socket.on('error', () => socket.destroy());
  socket.on('data', (text: string) => {
    const whole = lines.push(text);
    if (whole === undefined) {
      policy.refuse();
      socket.destroy();
      return;
    }
    for (const line of whole) {
      const heard = parseAgentLine(line);
      if (heard?.type === 'hello' && name === undefined && !agents.has(heard.guest)) {
        name = heard.guest;
        agents.set(name, socket);
        if (agents.size === Number(guests)) tell({ ready: true });
      } else if (heard?.type === 'look' && name !== undefined) {
        const order = policy.hear(name, heard.runnable);
        if (order !== undefined) agents.get(order.guest)?.write(`${order.verb} ${order.pid}\n`);
      } else {
        policy.refuse();
      }
    }
  });
});
server.listen(0, '127.0.0.1', () => tell({ port: (server.address() as AddressInfo).port }));

process.on('message', () => {
  process.send!({ counts: policy.counts } satisfies CoordinatorWord, () => process.exit(0));
});
process.on('disconnect', () => process.exit(1));
