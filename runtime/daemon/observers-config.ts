/** Keys of the configuration that turn observers on: what is told of every tick. */
export const OBSERVERS = {};

export type ObserverConfig = Record<never, never>;
