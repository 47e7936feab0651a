/** One call that reached a fake domain. */
export type FakeCall =
  | { readonly kind: 'read'; readonly frame: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'write'; readonly frame: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'stop' | 'resume' | 'prove' | 'registers' | 'state' | 'getShare' | 'close' }
  | { readonly kind: 'setShare'; readonly weight?: number; readonly cap?: number }
  | { readonly kind: 'inject'; readonly vcpu: number; readonly vector: number };

export type FakeCallKind = FakeCall['kind'];

interface PlannedFailure {
  kinds: ReadonlySet<FakeCallKind> | undefined;
  remaining: number;
  error: () => Error;
}

/** Records every call to a fake domain, in order, and lets chosen ones fail. */
export class Recorder {
  readonly calls: FakeCall[] = [];
  /** Switched off in benchmarks, which would otherwise measure the recording. */
  recording = true;
  #failures: PlannedFailure[] = [];
  #hooks: ((call: FakeCall) => void)[] = [];

  /**
   * Makes the n-th call from now fail (1 is the next). A read or write of several ranges counts as one call per range,
   * so each range can be made to fail.
   */
  failNth(n: number, error: () => Error, kinds?: readonly FakeCallKind[]): void {
    this.#failures.push({ kinds: kinds && new Set(kinds), remaining: n, error });
  }

  /** Calls `hook` before each call takes effect, for example to change memory as a running guest would. */
  onCall(hook: (call: FakeCall) => void): void {
    this.#hooks.push(hook);
  }

  reset(): void {
    this.calls.length = 0;
    this.#failures = [];
    this.#hooks = [];
  }

  /** Number of recorded calls of this kind. */
  count(kind: FakeCallKind): number {
    return this.calls.reduce((sum, call) => sum + (call.kind === kind ? 1 : 0), 0);
  }

  /** Whether `note` would do nothing, so that a hot path need not build the call. */
  get idle(): boolean {
    return !this.recording && this.#failures.length === 0 && this.#hooks.length === 0;
  }

  /** @throws the error that {@link failNth} planned for this call */
  note(call: FakeCall): void {
    if (this.recording) this.calls.push(call);
    for (const hook of this.#hooks) hook(call);
    for (const failure of this.#failures) {
      if (failure.kinds !== undefined && !failure.kinds.has(call.kind)) continue;
      failure.remaining -= 1;
      if (failure.remaining === 0) throw failure.error();
    }
  }
}
