import { z } from 'zod';
import type { PictureSpec } from './picture.ts';
import type { ClaimVerdict } from './verdict.ts';

/**
 * How much time an experiment may take. `glance` shows that it works and judges next to nothing, `short` judges what is
 * plain within minutes, `full` repeats until its intervals are narrow.
 */
export const FORMS = ['glance', 'short', 'full'] as const;
export type Form = (typeof FORMS)[number];

/** Where, when and with what the samples of a file were taken. */
export const SETUP = z.strictObject({
  experiment: z.string(),
  form: z.enum(FORMS),
  begun: z.string(),
  ended: z.string(),
  commit: z.string(),
  machine: z.strictObject({ cpu: z.string(), cpus: z.number(), memoryMiB: z.number(), kernel: z.string() }),
  /** Load of the last minute, at the begin and the end. */
  load: z.tuple([z.number(), z.number()]),
  /** Of all that the experiment runs, against other work of the host. */
  nice: z.number(),
  versions: z.strictObject({ domsched: z.string(), node: z.string(), qemu: z.string() }),
  accelerator: z.enum(['kvm', 'tcg']),
  /** Its version, where QEMU runs a Xen with the guests in it. */
  xen: z.string().optional(),
  /** Each guest in a few words. */
  guests: z.array(z.string()),
});
export type Setup = z.infer<typeof SETUP>;

/** One line of raw data beside its {@link Setup}. */
export type RawSample = Readonly<Record<string, unknown>>;

/** What an experiment gets when it measures. */
export interface Measuring {
  readonly form: Form;
  /** Writes down one sample as it was measured. */
  put(sample: RawSample): void;
  /** Says how far it is. */
  say(text: string): void;
}

/** What an experiment tells of the machines it used. */
export type UsedMachines = Pick<Setup, 'accelerator' | 'xen' | 'guests'>;

/** What the samples of one run say. Made from raw data alone, so that it can be made again. */
export interface Findings {
  readonly verdicts: readonly ClaimVerdict[];
  /** Markdown: the paper's numbers, ours, what differs, what is better and worse. */
  readonly text: string;
  readonly pictures: readonly { readonly name: string; readonly alt: string; readonly spec: PictureSpec }[];
}

/** One experiment: measuring boots guests, and is loaded only for that; judging is a pure function. */
export interface Experiment {
  /** As `ONLY` takes it, and in names of files. */
  readonly name: string;
  readonly title: string;
  /** How long each form takes, for people. */
  readonly takes: Readonly<Record<Form, string>>;
  measure(measuring: Measuring): Promise<UsedMachines>;
  judge(setup: Setup, samples: readonly RawSample[]): Findings;
}
