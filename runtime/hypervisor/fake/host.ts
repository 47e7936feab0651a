import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import type { Domain, DomainListing, Host } from '../types.ts';
import type { FakeDomain } from './domain.ts';

export class FakeHost implements Host {
  readonly hypervisor = 'fake';
  readonly connection = 'fake:';
  readonly domains: FakeDomain[];

  constructor(domains: readonly FakeDomain[] = []) {
    this.domains = [...domains];
  }

  async list(): Promise<readonly DomainListing[]> {
    return Promise.all(
      this.domains.map(async (domain) => {
        const frames = domain.frames.regions().reduce((sum, region) => sum + region.count, 0);
        return {
          identity: domain.identity,
          state: await domain.state(),
          vcpus: domain.vcpus.length,
          memoryBytes: frames * FRAME_SIZE,
        };
      }),
    );
  }

  ids(): readonly string[] {
    return this.domains.map(({ identity }) => identity.id);
  }

  async open(id: string): Promise<Domain> {
    const domain = this.domains.find((candidate) => candidate.identity.id === id);
    if (domain !== undefined) return domain;
    throw new DomschedError('domain-not-found', `no fake domain has the id ${id}`, { domain: id });
  }

  async close(): Promise<void> {
    await Promise.all(this.domains.map((domain) => domain.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
