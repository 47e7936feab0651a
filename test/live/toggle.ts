/** A policy of a user, as the text of a module: all subjects are held and let go in turn, beginning at a random moment. */
export const TOGGLE = `export default () => ({ subjects }, memory = Math.floor(6 * Math.random())) => ({
  memory: memory + 1,
  actions: Math.floor(memory / 3) % 2 === 1 ? [] :
    [...subjects].map((process) => ({ type: 'hold', process, reason: 'test' })),
});`;
