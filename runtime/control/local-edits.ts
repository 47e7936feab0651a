import { findProcess } from '../guest/find-process.ts';
import type { Process } from '../guest/process.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import type { Domain } from '../hypervisor/types.ts';
import { knownKernels } from '../layout/registry.ts';
import { JournaledSurgeon, Journals } from '../surgeon/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import { editAnswer, limitsOf } from './answers.ts';
import type { EditAnswer } from './control.ts';
import type { Options } from './schema.ts';

/** Edits domains that no daemon is attached to; each edit attaches by itself. */
export class LocalEdits {
  readonly #hosts: Hosts;

  constructor(hosts: Hosts) {
    this.#hosts = hosts;
  }

  /** @throws DomschedError as {@link Hosts.open}, {@link JournaledSurgeon.open}, {@link findProcess} and `perform` */
  async edit(
    target: Options<'release'>,
    perform: (surgeon: JournaledSurgeon, found: Process, options: OperateOptions) => Promise<Operation>,
  ): Promise<EditAnswer> {
    await using domain = await this.#hosts.open(target.domain);
    return await withSurgeon(domain, async (surgeon) => {
      const { processes } = await surgeon.guest.take({ withoutQueues: true });
      const { name } = domain.identity;
      const found = findProcess(name, processes, target.process);
      return editAnswer(name, found, await perform(surgeon, found, limitsOf(target)));
    });
  }
}

export async function withSurgeon<T>(
  domain: Domain,
  perform: (surgeon: JournaledSurgeon) => Promise<T>,
  journals = new Journals(),
): Promise<T> {
  const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), journals);
  try {
    return await perform(surgeon);
  } finally {
    surgeon.detach();
  }
}
