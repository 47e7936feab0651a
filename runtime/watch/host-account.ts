import type { HostClock, VcpuTime } from '../hypervisor/types.ts';
import type { HostView } from '../policy/world.ts';

/** Follows the host's account of one domain from look to look. */
export class HostAccount {
  readonly #clock: HostClock | undefined;
  #last: { readonly times: readonly VcpuTime[]; readonly nowMs: number } | undefined;
  #view: HostView | undefined;

  constructor(clock: HostClock | undefined) {
    this.#clock = clock;
  }

  /** What happened between the last two looks; undefined if the host does not tell. */
  get view(): HostView | undefined {
    return this.#view;
  }

  /** Spares the reading: the guest's memory shows that nothing ran. The next look has what was counted meanwhile. */
  rest(): void {
    if (this.#view === undefined) return;
    this.#view = { ...this.#view, vcpus: this.#view.vcpus.map(() => ({ ranNs: 0, waitedNs: 0 })) };
  }

  /** Reads the account, at the moment at which the guest is read. */
  look(nowMs: number): void {
    const last = this.#last;
    const times = this.#clock?.read();
    this.#last = times && { times, nowMs };
    const comparable = times !== undefined && last?.times.length === times.length;
    this.#view = comparable
      ? {
          elapsedMs: nowMs - last.nowMs,
          vcpus: times.map(({ ranNs, waitedNs }, i) => ({
            ranNs: Math.max(0, ranNs - last.times[i]!.ranNs),
            waitedNs: Math.max(0, waitedNs - last.times[i]!.waitedNs),
          })),
        }
      : undefined;
  }
}
