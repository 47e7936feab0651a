import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import test from 'ava';
import { execa } from 'execa';
import { freePort } from './free-port.ts';

/** So many that without a claim two of them would get the same port. */
const COUNT = 300;

const many = (): Promise<number[]> => Promise.all(Array.from({ length: COUNT }, freePort));

test('whoever asks gets ports of his own before anybody listens on them, beside another process that asks', async (t) => {
  const script = `
    import { freePort } from ${JSON.stringify(import.meta.resolve('./free-port.ts'))};
    console.log(JSON.stringify(await Promise.all(Array.from({ length: ${COUNT} }, freePort))));
    process.stdin.on('end', () => process.exit()).resume();`;
  const other = execa('node', ['--input-type=module', '-e', script]);
  const theirs = await new Promise<number[]>((resolve) => {
    createInterface(other.stdout).once('line', (line) => resolve(JSON.parse(line) as number[]));
  });
  const ours = await many();
  other.stdin.end();
  await other;
  t.is(new Set([...theirs, ...ours]).size, 2 * COUNT);

  const [low, high] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/).map(Number);
  const isRoomy = low! > 11_000 || high! < 64_000;
  t.log(`the kernel gives ${low} to ${high} to whoever connects`);
  if (isRoomy)
    t.deepEqual(
      ours.filter((port) => port >= low! && port <= high!),
      [],
    );
});
