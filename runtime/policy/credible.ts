import { IDLE_PART } from './sighting.ts';
import type { DomainView, ProcessView } from './world.ts';

/** Host time that nobody has claimed yet may be claimed later: guests and host count at different moments. In ms. */
const SAVED_MS = 1_000;
/**
 * A guest whose clock counts on while its vCPU waits claims that time too, and the time in which its vCPU waits for its
 * emulator, which nobody counts. More than this much of what is counted is a lie.
 */
const TOLERANCE = 2;
const LAG_MS = 20;
/** So many more looks with a lie than without one in ten show a guest that lies. */
const CAUGHT = 10;
const PARDON = 0.1;

/** What we remember of a domain's claims from tick to tick. */
export interface ClaimsMemory {
  /** Host time that no process has claimed, in ns. */
  readonly savedNs: number;
  /** Looks with a lie; they count down slowly. */
  readonly strikes: number;
  /** Processes that claimed to run or to wait at the last look. */
  readonly waiting: readonly string[];
}

export interface CredibleDomain {
  readonly domain: DomainView;
  readonly memory: ClaimsMemory;
  /** The guest has long claimed more than its host saw. */
  readonly overstated: boolean;
  /** Host time of this look that no process claims and that no idle vCPU costs, in ns. */
  readonly unclaimedNs: number;
}

/**
 * Counts a guest's word only as far as its host saw its vCPUs run. CPU times are scaled down to what the vCPUs had; a
 * process that claims to run or to wait for a CPU sleeps while no vCPU was awake. A guest that lies for long does not
 * get what idle vCPUs cost either. Without an account of the host the guest's word stands.
 */
export function credible(
  domain: DomainView,
  { savedNs, strikes, waiting }: ClaimsMemory = { savedNs: 0, strikes: 0, waiting: [] },
): CredibleDomain {
  const { host } = domain;
  if (host === undefined)
    return { domain, memory: { savedNs: 0, strikes: 0, waiting: [] }, overstated: false, unclaimedNs: 0 };
  const ranNs = sum(host.vcpus.map((vcpu) => vcpu.ranNs));
  const readyNs = ranNs + sum(host.vcpus.map((vcpu) => vcpu.waitedNs));
  const idleNs = IDLE_PART * host.elapsedMs * 1e6;
  const aboveIdleNs = sum(host.vcpus.map((vcpu) => Math.max(0, vcpu.ranNs - idleNs)));
  const claimedNs = sum(domain.processes.map((process) => process.ranNs));
  // The host's word too, about the moment just before this look.
  const isRoused = domain.processes.some(({ roused }) => roused);
  const isAwake = isRoused || host.vcpus.some((vcpu) => vcpu.ranNs + vcpu.waitedNs >= idleNs);

  const claimants = domain.processes.filter(isClaimant).map(({ key }) => key);
  const before = new Set(waiting);
  const lies =
    claimedNs > TOLERANCE * (readyNs + savedNs) + LAG_MS * 1e6 ||
    // Twice by the same process: a look may meet anybody awake for a moment. A paused guest or a dump does not run at all.
    (!isAwake && ranNs > 0 && claimants.some((key) => before.has(key)));
  const count = lies ? Math.min(2 * CAUGHT, strikes + 1) : Math.max(0, strikes - PARDON);
  const overstated = count >= CAUGHT;

  const allowedNs = overstated ? aboveIdleNs : ranNs + savedNs;
  const part = claimedNs > allowedNs ? allowedNs / claimedNs : 1;
  const left = overstated ? 0 : Math.min(SAVED_MS * 1e6, Math.max(0, ranNs + savedNs - claimedNs));
  return {
    domain:
      part === 1 && (isAwake || !domain.processes.some((one) => isClaimant(one) || one.waitedNs))
        ? domain
        : { ...domain, processes: domain.processes.map((process) => bounded(process, part, isAwake)) },
    memory: { savedNs: left, strikes: count, waiting: claimants },
    overstated,
    unclaimedNs: Math.max(0, aboveIdleNs - claimedNs),
  };
}

/** The same object if there is nothing to bound. */
function bounded(process: ProcessView, part: number, isAwake: boolean): ProcessView {
  if (process.ranNs === 0 && (isAwake || !(isClaimant(process) || process.waitedNs))) return process;
  const state = !isAwake && isClaimant(process) ? 'sleeping' : process.state;
  const ranNs = process.ranNs * part;
  return isAwake || process.waitedNs === undefined
    ? { ...process, state, ranNs }
    : { ...process, state, ranNs, waitedNs: 0 };
}

function isClaimant({ state }: ProcessView): boolean {
  return state === 'running' || state === 'ready';
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}
