import process from 'node:process';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const actions = new Set<() => void>();

/**
 * Runs `action` should the process exit or be ended by a signal before the returned function is called. The action
 * is synchronous: there is no more turn of the event loop. SIGKILL is for the watchdog.
 * @returns a function that takes the action back
 */
export function onExit(action: () => void): () => void {
  if (actions.size === 0) install();
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size === 0) uninstall();
  };
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
  process.on('exit', runAll);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function uninstall(): void {
  process.off('exit', runAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}
