import type { ProcessState } from '../guest/state.ts';
import type { ProcessView } from '../policy/world.ts';

/** A process's state as policies, `top` and traces name it. A kernel has more states; `ps` shows them. */
export const STATES: Readonly<Record<ProcessState, ProcessView['state']>> = {
  running: 'running',
  ready: 'ready',
  sleeping: 'sleeping',
  'disk-sleep': 'sleeping',
  idle: 'sleeping',
  parked: 'parked',
  held: 'held',
  stopped: 'stopped',
  traced: 'stopped',
  zombie: 'ended',
  dead: 'ended',
};
