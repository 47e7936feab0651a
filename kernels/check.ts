import path from 'node:path';
import { check as checkGenerated, type Difference } from '../codegen/index.ts';
import { readStore } from '../codegen/store.ts';
import type { KernelLayout } from '../extractor/contract.ts';
import { crossCheck, type EngineComparison } from '../extractor/cross-check.ts';
import { openKernelFile } from '../extractor/elf/open.ts';
import { ExtractError } from '../extractor/error.ts';
import { engineRequest, extractLayout } from '../extractor/extract.ts';
import { schedulersOf } from '../runtime/layout/schedulers.ts';
import { type ConfigFact, checkConfig, find } from './check-config.ts';
import { isSet, type KernelConfig, readConfig } from './config.ts';
import { compareStructs, structsOf } from './facts.ts';
import type { LayoutFinding } from './finding.ts';
import { isReleaseOf } from './manifest.ts';
import type { Subject } from './subjects.ts';

/** The outcome for one kernel. */
export interface CheckResult {
  id: string;
  release: string;
  buildId: string | null;
  findings: LayoutFinding[];
  /** What could not be compared and why, for people; not a failure. */
  notes: string[];
  counts: { structs: number; engines: string[]; members: number; facts: number; rules: number };
}

export interface CheckPlace {
  /** The store of committed layouts. */
  outDir: string;
  signal?: AbortSignal;
}

/** All facts about one kernel, from its different sources. */
export interface Evidence {
  config: KernelConfig;
  /** Extracted just now. */
  layout: KernelLayout;
  engines: readonly EngineComparison[];
  committed: Committed;
}

/**
 * Checks one kernel: extracts its layout again and compares it with the committed one, the other engines, measurements
 * by other tools, and its configuration.
 * @throws ExtractError if the kernel cannot be read, the file system's error if its config cannot
 */
export async function checkKernel(subject: Subject, place: CheckPlace): Promise<CheckResult> {
  return judge(subject, await gather(subject, place));
}

/** Reads the kernel, its configuration and its committed layout. @throws as {@link checkKernel} */
export async function gather(subject: Subject, { outDir, signal }: CheckPlace): Promise<Evidence> {
  const config = readConfig(subject.config);
  await using file = await openKernelFile(subject.file);
  const request = { selection: { kind: 'scheduler' } as const, ...(signal ? { signal } : {}) };
  const layout = await extractLayout(file, { engine: 'auto', ...request });
  const engines = await compareEngines(file, engineRequest(request));
  return { config, layout, engines, committed: await compareCommitted(layout, subject, outDir) };
}

/** A file that only one engine can read (no gdb on this machine, no BTF in the kernel) is not compared. */
async function compareEngines(
  ...[file, request]: Parameters<typeof crossCheck>
): Promise<EngineComparison[]> {
  try {
    return await crossCheck(file, request);
  } catch (error) {
    if (error instanceof ExtractError && error.code === 'engine-unavailable') return [];
    throw error;
  }
}

/** Compares a kernel's sources with each other. */
export function judge(subject: Subject, { config, layout, engines, committed }: Evidence): CheckResult {
  const rules = checkConfig(layout, config);
  const sides = new Sides(subject, layout, committed, rules);
  const measured = subject.facts ? structsOf(subject.facts) : {};
  const readable = engines.filter(({ unavailable }) => unavailable === null);
  return {
    id: subject.id,
    release: layout.kernel.release ?? subject.id,
    buildId: layout.kernel.buildId,
    findings: [
      ...generatedFindings(committed.differences, sides),
      ...engineFindings(engines, sides),
      ...compareStructs(measured, layout.structs).map(({ subject: about, left, right }) =>
        sides.finding('facts', about, { kernel: right, measured: left }),
      ),
      ...rules
        .filter(({ agrees }) => !agrees)
        .map(({ subject: about, found }) => sides.finding('config', about, { kernel: found })),
      ...manifestFindings(subject, layout, config, sides),
    ],
    notes: [
      ...committed.notes,
      ...(readable.length < 2 ? ['only one engine can read it: engines not compared'] : []),
      ...engines
        .filter(({ unavailable }) => unavailable !== null)
        .map(({ engine, unavailable }) => `${engine} left out: ${unavailable}`),
    ],
    counts: {
      structs: Object.keys(layout.structs).length,
      engines: readable.map(({ engine }) => engine),
      members: Math.max(0, ...readable.map(({ members }) => members)),
      facts: Object.keys(measured).filter((name) => Object.hasOwn(layout.structs, name)).length,
      rules: rules.length,
    },
  };
}

/** A kernel's committed layout compared with the kernel as it is now. */
export interface Committed {
  /** Folder in `generated/` that it was compared with; null if there is none. */
  folder: string | null;
  differences: Difference[];
  notes: string[];
}

/**
 * Debian removes old point releases, so the kernel here may be newer than the committed layout. That is no defect and
 * nothing is left to compare with, so it becomes a note. A kernel without any committed release is a finding.
 */
export async function compareCommitted(
  layout: KernelLayout,
  subject: Subject,
  outDir: string,
): Promise<Committed> {
  const store = await readStore(outDir);
  const { release, buildId } = layout.kernel;
  const same =
    store.find((kernel) => kernel.release === release && kernel.buildId === buildId) ??
    store.find((kernel) => kernel.release === release);
  const { debian } = subject;
  const other = debian && store.find((kernel) => isReleaseOf(debian, kernel.release));
  if (!same && other) {
    return {
      folder: null,
      differences: [],
      notes: [
        `generated/ has ${other.folder}, the archive has moved on to ${release}: ` +
          `\`npm run extract -- ${path.relative('', subject.file)}\` adds it`,
      ],
    };
  }
  const found = await checkGenerated(layout, { outDir });
  // Another domsched version that finds the same layout is no difference.
  const differences = found.filter(({ about, where }) => about !== 'provenance' || where !== 'producer');
  return { folder: same?.folder ?? null, differences, notes: [] };
}

/** Formats the three sides of a finding. */
class Sides {
  readonly #subject: Subject;
  readonly #layout: KernelLayout;
  readonly #committed: Committed;
  readonly #rules: readonly ConfigFact[];

  constructor(subject: Subject, layout: KernelLayout, committed: Committed, rules: readonly ConfigFact[]) {
    this.#subject = subject;
    this.#layout = layout;
    this.#committed = committed;
    this.#rules = rules;
  }

  /**
   * @param about `structure.member`, a structure or a symbol
   * @param said what each side says, if it is not just the position in the structure
   */
  finding(
    check: LayoutFinding['check'],
    about: string,
    said: {
      property?: string | null;
      generated?: string | null;
      kernel: string | null;
      measured?: string;
      config?: string;
    },
  ): LayoutFinding {
    const measured =
      said.measured && this.#subject.facts ? `; ${said.measured} by ${this.#subject.facts.measuredWith}` : '';
    return {
      check,
      subject: said.property ? `${about}: ${said.property}` : about,
      generated: this.#generated(about, said.generated),
      kernel: `${this.#kernelName()}: ${said.kernel ?? 'not there'}${measured}`,
      config: `${this.#configName()}: ${said.config ?? this.#configSays(about)}`,
    };
  }

  #generated(about: string, value: string | null | undefined): string {
    const { folder, differences } = this.#committed;
    if (folder === null) return `generated/: no layout of ${this.#layout.kernel.release}`;
    if (value !== undefined) return `generated/${folder}: ${value ?? 'not there'}`;
    const own = differences.filter(({ where }) => where === about);
    const text = own.map(({ property, generated }) => `${property ?? about} ${generated ?? 'not there'}`);
    return `generated/${folder}: ${text.length > 0 ? text.join(', ') : 'as in the kernel'}`;
  }

  #kernelName(): string {
    const { source, kernel } = this.#layout;
    return `${source.file} (${source.engine}, build-id ${kernel.buildId ?? 'none'})`;
  }

  #configName(): string {
    return path.relative(path.dirname(path.dirname(this.#subject.config)), this.#subject.config);
  }

  #configSays(about: string): string {
    const own = this.#rules.filter(({ subject }) => subject === about);
    if (own.length > 0) {
      return own
        .map(({ options, expected, rule: { source } }) => {
          return `${options}: ${about} ${expected} (${source.file} of ${source.release})`;
        })
        .join('; ');
    }
    const wrong = this.#rules.filter(({ agrees }) => !agrees).length;
    const others =
      wrong === 0
        ? `all ${this.#rules.length} rules agree with the kernel`
        : `${wrong} rules disagree with the kernel`;
    return `no rule about ${about}; ${others}`;
  }
}

function generatedFindings(differences: readonly Difference[], sides: Sides): LayoutFinding[] {
  return differences.map((difference) => {
    const { about, where, property, generated, extracted, message } = difference;
    if (about === 'kernel' && property === null && generated === null) {
      return sides.finding('generated', 'committed layout', {
        kernel: 'has none; `npm run extract` makes it',
      });
    }
    const subject = about === 'text' || about === 'registry' ? message : where;
    return sides.finding('generated', subject, { property, generated, kernel: extracted });
  });
}

function engineFindings(engines: readonly EngineComparison[], sides: Sides): LayoutFinding[] {
  return engines.flatMap(({ engine, against, disagreements }) =>
    disagreements.map(({ where, property, first, second }) =>
      sides.finding('engines', where, {
        property,
        kernel: `${against} says ${first}, ${engine} says ${second}`,
      }),
    ),
  );
}

/** Compares with what the manifest promises for every point release. */
function manifestFindings(
  subject: Subject,
  layout: KernelLayout,
  config: KernelConfig,
  sides: Sides,
): LayoutFinding[] {
  if (!subject.debian) return [];
  const { expect, id } = subject.debian;
  const schedulers: string[] = schedulersOf(layout.structs);
  const facts: [what: string, expected: unknown, found: unknown][] = [
    [
      'scheduler',
      expect.scheduler,
      schedulers.includes(expect.scheduler) ? expect.scheduler : schedulers.join(),
    ],
    ['DWARF version', expect.dwarfVersion, layout.source.dwarfVersion],
    ['CONFIG_PREEMPT_RT', expect.preemptRt, isSet(config, 'CONFIG_PREEMPT_RT')],
    ['sleeping spinlocks', expect.preemptRt, (find(layout, 'task_struct.alloc_lock')?.size ?? 0) > 4],
    ['release', true, isReleaseOf(subject.debian, layout.kernel.release ?? '')],
  ];
  return facts
    .filter(([, expected, found]) => expected !== found)
    .map(([what, expected, found]) =>
      sides.finding('manifest', what, {
        kernel: `${found}`,
        config: `kernels/debian says ${expected} for ${id}`,
      }),
    );
}
