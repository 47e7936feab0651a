import process from 'node:process';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** A handler of a signal costs system calls: for so long after the last action they stay, doing nothing. */
const LINGER_MS = 1_000;
const actions = new Set<() => void>();
let installed = false;
let lingering: NodeJS.Timeout | undefined;

/**
 * Runs `action` should the process exit or be ended by a signal before the returned function is called. The action
 * is synchronous: there is no more turn of the event loop. SIGKILL is for the watchdog.
 * @returns a function that takes the action back
 */
export function onExit(action: () => void): () => void {
  install();
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size === 0 && installed) linger();
  };
}

function linger(): void {
  if (lingering === undefined) {
    lingering = setTimeout(() => {
      if (actions.size === 0) uninstall();
    }, LINGER_MS);
    lingering.unref();
  } else {
    lingering.refresh();
  }
}

function runAll(): void {
  for (const action of [...actions]) {
    actions.delete(action);
    action();
  }
}

function onSignal(signal: NodeJS.Signals): void {
  // A program that handles the signal itself releases its guards on its own way out.
  if (process.listenerCount(signal) > 1) return;
  runAll();
  uninstall();
  process.kill(process.pid, signal);
}

function install(): void {
  if (installed) return;
  installed = true;
  process.on('exit', runAll);
  // First, so that a handler which the program has for one signal only is still seen.
  for (const signal of SIGNALS) process.prependListener(signal, onSignal);
}

function uninstall(): void {
  installed = false;
  process.off('exit', runAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}
