import type { DomainWith } from '../../runtime/hypervisor/types.ts';

type WritableDomain = DomainWith<'pause' | 'writeFrames'>;

/**
 * The same domain for somebody who is killed after having written so many words of an edit: nothing more is written, not
 * to put them back either, and the guest goes on as it does when a tracer dies.
 */
export function diesAfter(domain: WritableDomain, words: number): WritableDomain {
  let dead = false;
  const { pause, writeFrames } = domain;
  return {
    identity: domain.identity,
    frames: domain.frames,
    ...(domain.lacksBranchTracking !== undefined && { lacksBranchTracking: domain.lacksBranchTracking }),
    get generation() {
      return domain.generation;
    },
    tick: () => domain.tick(),
    state: () => domain.state(),
    onEvent: (listener) => domain.onEvent(listener),
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
    pause: {
      endsWithUs: true,
      get depth() {
        return pause.depth;
      },
      async acquire() {
        const guard = await pause.acquire();
        return {
          foundPaused: guard.foundPaused,
          endsWithUs: true as const,
          get valid() {
            return guard.valid;
          },
          prove: () => guard.prove(),
          isQuiet: () => guard.isQuiet(),
          keepOnDeath: () => undefined,
          // Who is dead has nobody wait for an operator.
          abandon: () => undefined,
          release: () => guard.release(),
          [Symbol.asyncDispose]: () => guard.release(),
        };
      },
    },
    writeFrames: {
      write(writes) {
        if (!dead) writeFrames.write(writes.slice(0, words));
        dead = true;
        throw new Error(`killed after ${words} words`);
      },
    },
  };
}
