import { z } from 'zod';
import type { Failure, ProcessRow, PsAnswer } from '../control/control.ts';
import { FleetClient } from '../fleet/client.ts';
import { printable } from '../guest/text.ts';
import { fleetConfig } from './fleet-config.ts';

const count = z
  .number()
  .int()
  .min(-(2 ** 53))
  .max(2 ** 53);
const name = z.string().max(256);
/** No process has used more CPU time, and no host has been up for longer. */
const ns = z
  .number()
  .min(0)
  .max(2 ** 63);
/** A process as another host tells it, which may tell anything. */
const ROW = z
  .object({
    domain: name,
    pid: count,
    tgid: count,
    ppid: count,
    // Spelt for terminals where it was read; spelt again if it was not.
    comm: name.transform((text) => (/^[\x20-\x7e]*$/.test(text) ? text : printable(text))),
    state: z.string().regex(/^[a-z-]{1,16}$/),
    cpu: count,
    nice: count,
    policy: z.string().regex(/^[a-z]{1,16}$/),
    utimeNs: ns,
    stimeNs: ns,
    runtimeNs: ns,
    threads: count,
    kernelThread: z.boolean(),
    exiting: z.boolean().default(false),
    startTimeNs: ns,
  })
  .transform((row) => ({ ...row, rawComm: row.comm }) as ProcessRow);
const FAILURE = z.object({
  domain: name,
  code: z.string().regex(/^[a-z-]{1,32}$/),
  message: z.string().max(2_000),
});

/** What one host says of its processes. */
export interface HostProcesses {
  readonly host: string;
  /** When it said so, in ms of this process's clock. */
  readonly heardMs: number;
  readonly rows: readonly ProcessRow[];
  readonly errors: readonly Failure[];
}

/** The processes of all hosts of a fleet that answer; a domain is named `host/domain`. */
export class FleetProcesses implements AsyncDisposable {
  readonly #client: FleetClient;

  private constructor(client: FleetClient) {
    this.#client = client;
  }

  /** @throws DomschedError `host-unreachable`, `usage`, `config-invalid` */
  static async open(config: string): Promise<FleetProcesses> {
    return new FleetProcesses(await FleetClient.open(await fleetConfig(config)));
  }

  /** @throws DomschedError `host-unreachable` */
  async ps(domain?: string): Promise<PsAnswer> {
    const { hosts, notes } = await this.ask();
    const isWanted = (one: { domain: string }) => domain === undefined || one.domain === domain;
    return {
      rows: hosts.flatMap(({ rows }) => rows).filter(isWanted),
      errors: hosts
        .flatMap(({ host, errors }) => errors.map((one) => ({ ...one, message: `${host}: ${one.message}` })))
        .filter(isWanted),
      notes,
    };
  }

  /** As {@link ps}, host by host. */
  async ask(): Promise<{ readonly hosts: readonly HostProcesses[]; readonly notes: readonly string[] }> {
    const { answers, notes } = await this.#client.processes(ROW, FAILURE);
    const none = 'no host of the fleet answered; domsched fleet status says on each how it stands';
    return {
      notes: [
        ...(answers.length === 0 ? [none] : []),
        ...notes,
        ...answers
          .filter(({ left }) => left > 0)
          .map(({ host, left }) => `${host}: ${left} processes that used less CPU time are left out`),
      ],
      hosts: answers.map(({ host, heardMs, rows, errors }) => {
        const named = <T extends { domain: string }>(one: T) => ({ ...one, domain: `${host}/${one.domain}` });
        return { host, heardMs, rows: rows.map(named), errors: errors.map(named) };
      }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }
}
