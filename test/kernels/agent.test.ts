/** The shell that tests have in their guests, over a serial port that loses what it received. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { answering, GuestAgent } from '../live/agent.ts';

/** What a 16550A keeps at most. */
const FIFO = 16;

test('a command of which any 16 bytes are lost on the way is run whole and once', async (t) => {
  t.timeout(120_000);
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-agent-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const ran = path.join(directory, 'ran');
  /** Of the next line: the first of the bytes that it loses. */
  let losesAt: number | undefined;
  let lost = 0;
  const server = createServer((agent) => {
    const shell = spawn('sh', ['-c', `LC_ALL=C; ${answering('eval "$line"')}`]);
    agent.on('data', (data) => {
      if (losesAt === undefined || data.length <= losesAt) return void shell.stdin.write(data);
      shell.stdin.write(data.subarray(0, losesAt));
      shell.stdin.write(data.subarray(losesAt + FIFO));
      losesAt = undefined;
      lost += 1;
    });
    shell.stdout.pipe(agent);
    shell.stderr.pipe(agent);
    agent.on('close', () => shell.kill());
  });
  const socket = path.join(directory, 'agent.sock');
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.teardown(() => server.close());
  const agent = await GuestAgent.connect(socket);
  t.teardown(() => agent.close());

  const command = (number: number) => `echo "number ${number}" >> ${ran}; echo "said  ${number}"`;
  // All but the last loses leave the end of the line; the last waits until it is asked for.
  const places = Array.from({ length: command(10).length - FIFO }, (_, at) => at);
  places.push(command(10).length - 3);
  for (const [index, at] of places.entries()) {
    losesAt = at;
    t.is(await agent.run(command(10 + index)), `said  ${10 + index}\n`, `from byte ${at}`);
  }
  t.is(lost, places.length);
  const lines = (await agent.run(`cat ${ran}`)).trim().split('\n');
  t.deepEqual(
    lines,
    places.map((_, index) => `number ${10 + index}`),
  );
});
