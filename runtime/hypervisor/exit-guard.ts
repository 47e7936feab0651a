import process from 'node:process';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** Handlers stay at least this long after the last action, because installing them costs system calls. */
const LINGER_MS = 1_000;
const actions = new Set<() => void>();
let installed = false;
/** Ctrl-Z came while an action was to be done, and stops the program when none is any more. */
let stopLater = false;
let lingering: NodeJS.Timeout | undefined;
/** There was an action since the handlers were last looked at. */
let used = false;

/**
 * Runs `action` if the process exits, or a signal ends it, before the returned function is called. The action must be
 * synchronous: the event loop does not turn again. The watchdog covers SIGKILL. Ctrl-Z (SIGTSTP) waits until
 * no action is left, so that nobody is left paused by it.
 * @returns a function that withdraws the action
 */
export function onExit(action: () => void): () => void {
  install();
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size > 0 || !installed) return;
    if (stopLater) stopNow();
    linger();
  };
}

function linger(): void {
  used = true;
  lingering ??= setInterval(() => {
    if (actions.size === 0 && !used) uninstall();
    used = false;
  }, LINGER_MS).unref();
}

function runAll(): void {
  for (const action of [...actions]) {
    actions.delete(action);
    action();
  }
}

function onSignal(signal: NodeJS.Signals): void {
  // A program that handles the signal itself releases its guards as it exits.
  if (process.listenerCount(signal) > 1) return;
  runAll();
  uninstall();
  process.kill(process.pid, signal);
}

function onStop(): void {
  // A program that handles the signal itself knows when to stop.
  if (process.listenerCount('SIGTSTP') > 1) return;
  stopLater = true;
  if (actions.size === 0) stopNow();
}

function stopNow(): void {
  stopLater = false;
  process.kill(process.pid, 'SIGSTOP');
}

function install(): void {
  if (installed) return;
  installed = true;
  process.on('exit', runAll);
  // Prepended so that a `once` handler of the program still counts when ours runs.
  for (const signal of SIGNALS) process.prependListener(signal, onSignal);
  process.on('SIGTSTP', onStop);
}

function uninstall(): void {
  installed = false;
  clearInterval(lingering);
  lingering = undefined;
  process.off('exit', runAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
  process.off('SIGTSTP', onStop);
}
