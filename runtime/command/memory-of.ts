import type { KernelMemory } from '../../extractor/contract.ts';
import { kernelMemory } from '../guest/identify/from-memory.ts';
import { kernelImage } from '../guest/identify/identify.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { absoluteConnect } from '../hypervisor/connect-value.ts';
import { openDomain } from '../watch/choose.ts';

/**
 * Copies the kernel from a domain's memory, for `extract --from`.
 * @throws DomschedError `domain-not-found`, `domain-ambiguous`, `kernel-unidentified`, `domain-gone`,
 *   `host-unreachable`
 */
export async function memoryOf(name: string, connect: readonly string[]): Promise<KernelMemory> {
  await using hosts = await connectAll(connect.map(absoluteConnect));
  await using domain = await openDomain(hosts, name);
  return await kernelMemory(domain.identity.name, await kernelImage(domain));
}
