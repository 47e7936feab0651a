import type { Socket } from 'node:net';
import type { LineQueue } from '../hypervisor/qemu/line-socket.ts';
import type { Broker } from './broker.ts';
import { MOST_ANSWER_BYTES, MOST_BYTES, MOST_REQUESTS } from './protocol.ts';
import { wire } from './wire.ts';

/**
 * Answers that a reader does not take. One that waits for its answers has as many as it may ask for at once; one that
 * asks on and on and takes nothing is no reader of ours.
 */
const QUEUE: LineQueue = { lines: 2 * MOST_REQUESTS, bytes: MOST_ANSWER_BYTES };

/** Answers a reader until its connection ends, by itself or because it takes no answers; then all machines are let go. */
export async function serve(broker: Broker, socket: Socket, queue = QUEUE): Promise<void> {
  const reader = wire(socket, MOST_BYTES, queue);
  await new Promise<void>((resolve) => {
    reader.listen(
      async (line) => reader.send(await broker.answer(line)),
      () => resolve(),
    );
  });
  await broker.close();
}
