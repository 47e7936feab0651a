import type { Guest } from './guest.ts';

/**
 * Identifies one boot of a guest by facts that differ from boot to boot: where its kernel was put (KASLR), and the
 * address and start time (ns after its clock began) of the first process.
 * @throws DomschedError as {@link Guest.processesAlone}
 */
export function bootMark(
  guest: Guest,
  init = guest.processesAlone().processes.find(({ pid }) => pid === 1),
): string {
  const { slide } = guest.kernel;
  return `${slide.toString(16)}-${init?.address.toString(16) ?? 0}-${init?.startTimeNs ?? 0}`;
}
