/** A record of a held process as a journal has it, of a machine that is nowhere. */
export const HELD = {
  connection: 'fake:',
  domain: 'fuzz',
  name: 'fuzz',
  buildId: null,
  pid: 7,
  comm: 'burner',
  address: '0xffff888000001000',
  startTimeNs: 12,
  since: '2026-01-01T00:00:00.000Z',
};
