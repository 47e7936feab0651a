/** What a vCPU that idles may cost its host, as part of a CPU: its timer, its devices, an emulator's own work. */
export const IDLE_PART = 0.1;

/** Two looks that are closer may meet the same short work: an interrupt's, a daemon's that looks around. In ms. */
export const APART_MS = 1.5;
/** A sighting that nothing followed for so long is forgotten, in ms. */
const FORGOTTEN_MS = 50;

/** Somebody that counts was on a CPU of a domain at one look. */
export interface Sighting {
  /** Tasks on its CPUs that count. */
  readonly tasks: readonly number[];
  /** What the host had counted of its vCPUs by then: how long they ran or waited, in ns; undefined if it does not tell. */
  readonly awakeNs: readonly number[] | undefined;
}

/** The first of several sightings in a domain. */
export interface FirstSighting extends Sighting {
  readonly atMs: number;
}

/**
 * Judges one look at a domain in which somebody that counts was on a CPU, or nobody was. One sighting is no proof, since
 * a look meets anybody that is awake for a moment; a second one is, if the host says that vCPUs of the domain were awake in
 * between: of what its memory says a guest chooses every word.
 * @param seen undefined if nobody was on a CPU
 * @returns what to remember for the next look, and whether somebody has begun to run
 */
export function judge(
  before: FirstSighting | undefined,
  seen: Sighting | undefined,
  nowMs: number,
): { readonly first: FirstSighting | undefined; readonly roused: boolean } {
  const isOld = before === undefined || nowMs - before.atMs > FORGOTTEN_MS;
  if (seen === undefined) return { first: isOld ? undefined : before, roused: false };
  if (isOld) return { first: { ...seen, atMs: nowMs }, roused: false };
  if (nowMs - before.atMs < APART_MS) return { first: before, roused: false };
  if (wasAwake(before, seen, nowMs - before.atMs)) return { first: undefined, roused: true };
  return { first: { ...seen, atMs: nowMs }, roused: false };
}

function wasAwake(before: Sighting, { awakeNs }: Sighting, elapsedMs: number): boolean {
  // Without an account of the host the guest's word stands, as it does for policies.
  if (before.awakeNs === undefined || awakeNs === undefined) return true;
  return awakeNs.some((ns, i) => ns - (before.awakeNs![i] ?? ns) >= IDLE_PART * elapsedMs * 1e6);
}

/** Ticks that are brought forward come at least so far apart, in ms, and take at most this part of the time. */
export const EARLY_GAP_MS = 50;
export const EARLY_PART = 0.1;

/** How long after a tick that was brought forward and took so long no other may be, in ms. */
export function gapAfter(tookMs: number): number {
  return Math.max(EARLY_GAP_MS, tookMs / EARLY_PART);
}
