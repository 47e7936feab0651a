import type { Process } from '../guest/process.ts';
import type { JournaledSurgeon } from '../surgeon/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { EditAnswer } from './control.ts';
import type { Options } from './schema.ts';

/** What a request may do to a process. */
export type ProcessEdits = Pick<JournaledSurgeon, 'hold' | 'release' | 'renice' | 'reniceGroup'>;

/** Performs an edit on the process that a request names. */
export type EditWork = (edits: ProcessEdits, process: Process, limits: OperateOptions) => Promise<Operation>;

/** What requests for edits mean, wherever the domain is attached to. */
export abstract class EditRequests {
  /** Attaches to the domain, finds the process by a look of its own, and performs the edit. */
  protected abstract edit(target: Options<'release'>, work: EditWork): Promise<EditAnswer>;

  hold(options: Options<'hold'>): Promise<EditAnswer> {
    const { technique = 'auto', force = false } = options;
    const ways = technique === 'auto' ? {} : { techniques: [technique] };
    return this.edit(options, (edits, process, limits) => edits.hold(process, { ...limits, ...ways, force }));
  }

  release(options: Options<'release'>): Promise<EditAnswer> {
    return this.edit(options, (edits, process, limits) => edits.release(process, limits));
  }

  renice(options: Options<'renice'>): Promise<EditAnswer> {
    const { nice, group = false } = options;
    return this.edit(options, (edits, process, limits) =>
      group ? edits.reniceGroup(process, nice, limits) : edits.renice(process, nice, limits),
    );
  }
}
