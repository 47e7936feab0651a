import { findProcess } from '../guest/find-process.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import type { Domain } from '../hypervisor/types.ts';
import { knownKernels } from '../layout/registry.ts';
import { Journals } from '../surgeon/journaled-surgeon.ts';
import { attach, type EditableDomain } from '../watch/attached-domain.ts';
import { openDomain } from '../watch/choose.ts';
import { processesOf } from '../watch/look.ts';
import { editAnswer, limitsOf } from './answers.ts';
import type { EditAnswer } from './control.ts';
import type { EditWork } from './edit-requests.ts';
import type { Options } from './schema.ts';

/**
 * Edits a process of a domain that no daemon is attached to.
 * @throws DomschedError as {@link openDomain}, {@link attach}, {@link findProcess} and `work`
 */
export async function editLocally(
  hosts: Hosts,
  target: Options<'release'>,
  work: EditWork,
): Promise<EditAnswer> {
  await using domain = await openDomain(hosts, target.domain);
  return await whileAttached(domain, new Journals(), async ({ guest, surgeon }) => {
    const { name } = domain.identity;
    const found = findProcess(name, await processesOf(guest), target.process);
    return editAnswer(name, found, await work(surgeon, found, limitsOf(target)));
  });
}

export async function whileAttached<T>(
  domain: Domain,
  journals: Journals,
  perform: (attached: EditableDomain) => Promise<T>,
): Promise<T> {
  const attached = await attach(domain, { journals, known: knownKernels, origins: false });
  try {
    return await perform(attached);
  } finally {
    attached.guest.detach();
  }
}
