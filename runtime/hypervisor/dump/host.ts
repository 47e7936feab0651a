import { DomschedError } from '../../error.ts';
import type { Domain, DomainListing, Host } from '../types.ts';
import { DumpDomain, dumpConnection } from './domain.ts';

/** One memory dump as a host of one domain. */
export class DumpHost implements Host {
  readonly hypervisor = 'dump';
  readonly connection: string;
  readonly #path: string;
  readonly #lowBytes: number | undefined;

  constructor(path: string, lowBytes?: number) {
    this.#path = path;
    this.#lowBytes = lowBytes;
    this.connection = dumpConnection(path, lowBytes);
  }

  async list(): Promise<readonly DomainListing[]> {
    try {
      await using domain = new DumpDomain(this.#path, this.#lowBytes);
      const frames = domain.frames.regions().reduce((sum, { count }) => sum + count, 0);
      return [{ identity: domain.identity, state: 'image', vcpus: domain.vcpus, memoryBytes: frames * 4096 }];
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      const name = this.#path.slice(this.#path.lastIndexOf('/') + 1);
      return [{ identity: { id: this.#path, name, hypervisor: 'dump', connection: this.connection }, error }];
    }
  }

  ids(): readonly string[] {
    return [this.#path];
  }

  async open(id: string): Promise<Domain> {
    if (id === this.#path) return new DumpDomain(this.#path, this.#lowBytes);
    throw new DomschedError('domain-not-found', `${this.connection} holds no ${id}`, { domain: id });
  }

  async close(): Promise<void> {
    // Nothing is held between calls.
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
