/** Ports of the loopback interface for programs of the tests that cannot be given port 0, or listen again and again. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';

const [LOWEST, HIGHEST] = [10_000, 65_000];

/**
 * A port that stays the caller's until its process ends: none that the kernel gives to whoever connects, where its range
 * leaves some (ip(7), `ip_local_port_range`), and none that another test has been given, though nobody listens on it yet.
 */
export async function freePort(): Promise<number> {
  const [low, high] = await givenByKernel();
  const isLeft = low > LOWEST || high < HIGHEST;
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (isLeft && port >= low && port <= high) continue;
    // A name that the kernel keeps for this process (unix(7), abstract sockets).
    const claim = createServer().unref();
    if (!(await listens(claim.listen(`\0domsched-test-port-${port}`)))) continue;
    const trial = createServer();
    if (!(await listens(trial.listen(port, '127.0.0.1')))) continue;
    trial.close();
    await once(trial, 'close');
    return port;
  }
}

async function givenByKernel(): Promise<readonly [number, number]> {
  const text = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(() => '');
  const [low = 0, high = 0] = text.split(/\s+/).map(Number);
  return [low, high];
}

async function listens(server: ReturnType<typeof createServer>): Promise<boolean> {
  return once(server, 'listening').then(
    () => true,
    () => false,
  );
}
