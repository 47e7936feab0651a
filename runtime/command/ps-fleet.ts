import { z } from 'zod';
import type { ProcessRow, PsAnswer } from '../control/control.ts';
import { FleetClient } from '../fleet/client.ts';
import { printable } from '../guest/text.ts';
import { fleetConfig } from './fleet-policy-run.ts';

const count = z
  .number()
  .int()
  .min(-(2 ** 53))
  .max(2 ** 53);
const name = z.string().max(256);
/** A process as another host tells it, which may tell anything. */
const ROW = z.object({
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
  utimeNs: z.number().min(0),
  stimeNs: z.number().min(0),
  runtimeNs: z.number().min(0),
  threads: count,
  kernelThread: z.boolean(),
  startTimeNs: z.number().min(0),
});
const FAILURE = z.object({ domain: name, code: z.string().max(64), message: z.string().max(2_000) });

/**
 * The processes of all hosts of a fleet that answer; a domain is named `host/domain`.
 * @throws DomschedError `host-unreachable`, `usage`, `config-invalid`
 */
export async function fleetProcesses(config: string, domain: string | undefined): Promise<PsAnswer> {
  await using client = await FleetClient.open(await fleetConfig(config));
  const answers = await client.processes();
  const notes = answers.length === 0 ? ['no host of the fleet answered'] : [];
  const rows: ProcessRow[] = [];
  const errors: PsAnswer['errors'][number][] = [];
  for (const { host, rows: told, left, errors: failed } of answers) {
    if (left > 0) notes.push(`${host}: ${left} processes that used less CPU time are left out`);
    for (const one of told) {
      const row = ROW.safeParse(one);
      if (row.success)
        rows.push({ ...row.data, domain: `${host}/${row.data.domain}` } as unknown as ProcessRow);
    }
    for (const one of failed) {
      const failure = FAILURE.safeParse(one);
      if (failure.success) errors.push({ ...failure.data, message: `${host}: ${failure.data.message}` });
    }
  }
  const isWanted = (one: { domain: string }) => domain === undefined || one.domain === domain;
  return { rows: rows.filter(isWanted), errors, notes };
}
