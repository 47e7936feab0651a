import { createHash } from 'node:crypto';
import { isMatch } from 'matcher';
import { plainName, plainPattern } from '../guest/text.ts';
import type { DomainView, ProcessView, World } from './world.ts';

/** One or several patterns: `*` stands for any characters, a leading `!` excludes. */
type Patterns = string | readonly string[];

/** Selects processes. All given properties must match; a property that the guest does not tell never matches. */
export interface SelectorSpec {
  /** Name of the host in its fleet. */
  readonly host?: Patterns | undefined;
  /** Name of the domain. */
  readonly domain?: Patterns | undefined;
  /** Name of the process, at most 15 characters as the kernel keeps it. */
  readonly comm?: Patterns | undefined;
  readonly pid?: number | readonly number[] | undefined;
  /** Path of its control group (v2), from the hierarchy's root. */
  readonly cgroup?: Patterns | undefined;
  /** User id as the guest's kernel has it; user names are in a file of the guest. */
  readonly user?: number | readonly number[] | undefined;
  /** Command line, with blanks between arguments. */
  readonly command?: Patterns | undefined;
}

export type Selector = (process: ProcessView) => boolean;

/**
 * Matches a process that any of the selectors matches; no selectors match nothing. The answer for a view is remembered as
 * long as the view is: one that did not change since the last tick is the same object.
 *
 * A process elsewhere is matched by its own host, which sees more of it than it tells. Only the name of that host is
 * checked here: the fleet's server vouches for it.
 * @param host name of this host in its fleet
 */
export function selector(specs: readonly SelectorSpec[], host?: string): Selector {
  const plain = specs.map((spec) => ({ ...plainSpec(spec), name: selectorName(spec) }));
  const known = new WeakMap<ProcessView, boolean>();
  return (process) => {
    const { elsewhere } = process;
    if (elsewhere !== undefined)
      return plain.some(
        ({ host: hosts, name: called }) => elsewhere.matched.has(called) && text(hosts, elsewhere.host),
      );
    let found = known.get(process);
    if (found === undefined) {
      found = plain.some((spec) => fits(spec, process, host));
      known.set(process, found);
    }
    return found;
  };
}

/** Names of those selectors that match a process of this host, sorted. */
export function matcher(
  specs: readonly SelectorSpec[],
  host?: string,
): (process: ProcessView) => readonly string[] {
  const plain = [...new Map(specs.map((spec) => [selectorName(spec), plainSpec(spec)]))].sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  return (process) => plain.filter(([, spec]) => fits(spec, process, host)).map(([called]) => called);
}

/** The same for the same selector on every host: 72 bits of a digest. */
export function selectorName(spec: SelectorSpec): string {
  const { host, domain, comm, pid, cgroup, user, command } = spec;
  const text = JSON.stringify([host, domain, comm, pid, cgroup, user, command].map((value) => value ?? null));
  return createHash('sha256').update(text).digest('base64url').slice(0, 12);
}

function plainSpec(spec: SelectorSpec): SelectorSpec {
  return {
    ...spec,
    domain: plainPatterns(spec.domain),
    comm: plainPatterns(spec.comm),
    cgroup: plainPatterns(spec.cgroup),
    command: plainPatterns(spec.command),
  };
}

/** Names, which others have chosen, may be given raw or as tables show them. */
function plainPatterns(patterns: Patterns | undefined): Patterns | undefined {
  return patterns === undefined ? undefined : [patterns].flat().map(plainPattern);
}

function fits(spec: SelectorSpec, process: ProcessView, host: string | undefined): boolean {
  return (
    text(spec.host, host) &&
    text(spec.domain, process.domainName) &&
    name(spec.comm, process.comm) &&
    number(spec.pid, process.pid) &&
    name(spec.cgroup, process.cgroup) &&
    number(spec.user, process.uid) &&
    name(spec.command, process.commandLine)
  );
}

/** @param spelt the guest's name as our terminals show it */
function name(patterns: Patterns | undefined, spelt: string | undefined): boolean {
  return text(patterns, spelt === undefined || patterns === undefined ? spelt : plainName(spelt));
}

function text(patterns: Patterns | undefined, value: string | undefined): boolean {
  if (patterns === undefined) return true;
  return value !== undefined && matches(patterns, value);
}

/** Whether a name of ours, such as a domain's, matches. */
export function matches(patterns: Patterns, value: string): boolean {
  return isMatch(value, patterns, { caseSensitive: true });
}

function number(wanted: number | readonly number[] | undefined, value: number | undefined): boolean {
  if (wanted === undefined) return true;
  return value !== undefined && (typeof wanted === 'number' ? wanted === value : wanted.includes(value));
}

/** Whether no policy may touch a process: kernel threads (the guest needs them), the first process, and ended ones. */
export function isUntouchable(process: ProcessView): boolean {
  return process.kernelThread || process.pid <= 1 || process.state === 'ended';
}

/** All processes of a world. */
export function* everyProcess(domains: readonly DomainView[]): Generator<ProcessView> {
  for (const { processes } of domains) yield* processes;
}

/** Keys of the subjects that are held at this look. */
export function heldSubjects({ domains, subjects }: World): string[] {
  return [...everyProcess(domains)]
    .filter(({ key, state }) => state === 'held' && subjects.has(key))
    .map(({ key }) => key);
}
