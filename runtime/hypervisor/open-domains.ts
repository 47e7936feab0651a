import type { Domain } from './types.ts';

/** Domains of a host that are open: one object for each, for as long as it is there. */
export class OpenDomains<T extends Domain> {
  readonly #open = new Map<string, T>();

  /** The domain if it is already open and has neither ended nor been closed. */
  async get(id: string): Promise<T | undefined> {
    const domain = this.#open.get(id);
    if (domain === undefined || (await domain.state()) !== 'gone') return domain;
    this.#open.delete(id);
    await domain.close();
    return undefined;
  }

  add(id: string, domain: T): T {
    this.#open.set(id, domain);
    domain.onEvent(({ type }) => {
      if (type === 'gone' && this.#open.get(id) === domain) this.#open.delete(id);
    });
    return domain;
  }

  async close(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.allSettled(open.map((domain) => domain.close()));
  }
}
