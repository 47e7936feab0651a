import { type Charge, type Culprit, culpritKey, type WaitPlace } from './charge.ts';
import { type DomainAudit, Ledger } from './ledger.ts';
import type { AccountSample, DomainTimes } from './sample.ts';
import { permilles } from './split.ts';

/** A culprit's part of the waits. */
export interface BlameShare {
  readonly culprit: Culprit;
  readonly place: WaitPlace;
  readonly waitedNs: number;
  /** In thousandths of all waits; those of all culprits add up to 1000. */
  readonly permille: number;
}

/** A process that waited. */
export interface BlameVictim {
  /** Name of its domain. */
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly ranNs: number;
  readonly waitedNs: number;
}

/** Who had the CPUs while processes of one domain were ready and did not run. Times are whole ns. */
export interface BlameResult {
  readonly elapsedNs: number;
  readonly samples: number;
  readonly ranNs: number;
  /** Sum of all shares. */
  readonly waitedNs: number;
  /** Most first. */
  readonly shares: readonly BlameShare[];
  readonly victims: readonly BlameVictim[];
  /** By the name of each domain that was seen. */
  readonly audits: ReadonlyMap<string, DomainAudit>;
}

/** Adds up the waits of one domain or of several, or of some of their processes. */
export class Blame {
  readonly #ledger = new Ledger();
  readonly #isMeant: (domain: DomainTimes) => boolean;
  readonly #isVictim: (process: Pick<Charge, 'pid' | 'comm'>) => boolean;
  readonly #shares = new Map<string, { share: Pick<BlameShare, 'culprit' | 'place'>; ns: number }>();
  readonly #victims = new Map<
    string,
    Omit<BlameVictim, 'ranNs' | 'waitedNs'> & { ranNs: number; waitedNs: number }
  >();
  readonly #seen = new Map<string, string>();
  #elapsedNs = 0;
  #samples = 0;

  /** @param domain its id, or which of all domains are meant */
  constructor(
    domain: string | ((domain: DomainTimes) => boolean),
    isVictim: (process: Pick<Charge, 'pid' | 'comm'>) => boolean = () => true,
  ) {
    this.#isMeant = typeof domain === 'string' ? ({ id }) => id === domain : domain;
    this.#isVictim = isVictim;
  }

  add(sample: AccountSample): void {
    this.#samples += 1;
    for (const { id, name } of sample.domains) this.#seen.set(id, name);
    const interval = this.#ledger.add(sample, this.#isMeant);
    if (interval === undefined) return;
    this.#elapsedNs += interval.elapsedNs;
    for (const run of interval.runs) {
      if (this.#isVictim(run)) this.#victim(run).ranNs += run.ns;
    }
    for (const charge of interval.charges) {
      if (!this.#isVictim(charge)) continue;
      const { culprit, place, ns } = charge;
      this.#victim(charge).waitedNs += ns;
      const key = `${place}\0${culpritKey(culprit)}`;
      const sum = this.#shares.get(key);
      if (sum === undefined) this.#shares.set(key, { share: { culprit, place }, ns });
      else sum.ns += ns;
    }
  }

  result(): BlameResult {
    const sums = [...this.#shares.values()].sort((a, b) => b.ns - a.ns);
    const parts = permilles(sums.map(({ ns }) => ns));
    const victims = [...this.#victims.values()].sort((a, b) => b.waitedNs - a.waitedNs || b.ranNs - a.ranNs);
    const audits = [...this.#seen].flatMap(([id, name]): [string, DomainAudit][] => {
      const audit = this.#ledger.audit(id);
      return audit === undefined ? [] : [[name, audit]];
    });
    return {
      elapsedNs: this.#elapsedNs,
      samples: this.#samples,
      ranNs: victims.reduce((sum, { ranNs }) => sum + ranNs, 0),
      waitedNs: sums.reduce((sum, { ns }) => sum + ns, 0),
      shares: sums.map(({ share, ns }, i) => ({ ...share, waitedNs: ns, permille: parts[i]! })),
      victims,
      audits: new Map(audits),
    };
  }

  #victim({ domain, pid, comm }: Pick<Charge, 'domain' | 'pid' | 'comm'>) {
    const key = `${pid} ${comm} ${domain}`;
    let victim = this.#victims.get(key);
    if (victim === undefined) {
      victim = { domain, pid, comm, ranNs: 0, waitedNs: 0 };
      this.#victims.set(key, victim);
    }
    return victim;
  }
}
