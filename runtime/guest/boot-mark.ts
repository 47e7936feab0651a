import type { Guest } from './guest.ts';

/**
 * Tells one boot of a guest from its others, by what differs from boot to boot: where its kernel was put (KASLR), and
 * where and when, in ns after its clock began, the first process was made.
 * @throws DomschedError as {@link Guest.processesAlone}
 */
export function bootMark(
  guest: Guest,
  init = guest.processesAlone().processes.find(({ pid }) => pid === 1),
): string {
  const { slide } = guest.kernel;
  return `${slide.toString(16)}-${init?.address.toString(16) ?? 0}-${init?.startTimeNs ?? 0}`;
}
