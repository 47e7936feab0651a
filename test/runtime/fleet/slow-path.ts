/** A way to the server on which it takes a while until the server knows what a host says or wants to hear. */
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export class SlowPath implements Disposable {
  readonly #proxy: net.Server;

  private constructor(proxy: net.Server) {
    this.#proxy = proxy;
  }

  static async to({ port }: { readonly port: number }, ms: number): Promise<SlowPath> {
    const proxy = net.createServer((host) => {
      const server = net.connect(port, '127.0.0.1');
      host.on('data', async (data) => {
        await sleep(ms);
        server.write(data);
      });
      server.pipe(host);
      for (const [one, other] of [
        [host, server],
        [server, host],
      ] as const)
        one.on('error', () => {}).on('close', () => other.destroy());
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    return new SlowPath(proxy);
  }

  get url(): string {
    return `nats://127.0.0.1:${(this.#proxy.address() as net.AddressInfo).port}`;
  }

  [Symbol.dispose](): void {
    this.#proxy.close();
  }
}
