/** A command whose work is loaded when it runs, to keep the other commands quick. */
export function lazily<A extends unknown[]>(load: () => Promise<(...given: A) => Promise<void>>) {
  return async (...given: A): Promise<void> => (await load())(...given);
}
