/**
 * Which room may import which (README.md has what the rooms are for): a room imports from rows above its own, and from
 * itself; and that no file is there for tests alone. `make check` runs this. A room that is new has to be given its place here.
 */
const ROWS = [
  ['extractor'],
  [
    'runtime/members',
    'runtime/(error|version|host-process|runtime-directory|journal-health|durable-write|private-socket|secret-file|cache-directory|private-cache|shell-word)\\.ts',
  ],
  ['runtime/layout', 'runtime/hypervisor', 'runtime/manual'],
  ['runtime/memory', 'runtime/code', 'codegen'],
  ['runtime/guest', 'kernels'],
  ['runtime/edit', 'runtime/policy'],
  ['runtime/technique', 'runtime/tick', 'runtime/blame'],
  ['runtime/surgeon', 'runtime/report', 'runtime/metrics', 'runtime/trace', 'runtime/top', 'runtime/fleet'],
  ['runtime/broker'],
  ['runtime/watch', 'runtime/web', 'runtime/brokered'],
  ['runtime/control'],
  ['runtime/daemon', 'runtime/index\\.ts'],
  ['runtime/command', 'runtime/debian'],
  ['program\\.ts', 'bundle\\.ts'],
  ['domsched\\.ts'],
];

const fileOf = (room) => (room.endsWith('.ts') ? `^${room}$` : `^${room}/`);
const rooms = ROWS.flatMap((row, i) => row.map((room) => ({ room, below: ROWS.slice(0, i).flat() })));

/** What a room may not import though it is above. */
const NARROWER = [
  // Policies are pure: of a guest they know how names are spelt.
  { from: '^runtime/policy/', to: ['^runtime/policy/', '^runtime/guest/text\\.ts$'] },
  // Declarations are data.
  { from: '^runtime/members/', to: ['^runtime/members/'] },
  // What a layout is and what an error is, not how a layout is made: the extractor runs as a thread of its own. A layout
  // that somebody else made is checked as one from a file is.
  {
    from: '^runtime/',
    to: ['^runtime/', '^generated/', '^extractor/(contract|known-error)\\.ts$', '^codegen/validate\\.ts$'],
  },
  { from: '^runtime/hypervisor/', to: ['^runtime/hypervisor/', '^runtime/[a-z-]+\\.ts$'] },
  // Who looks on sees ticks, and no guest.
  {
    from: '^runtime/(metrics|report|top|web)/',
    to: [
      '^runtime/(metrics|report|top|trace|web|tick)/',
      '^runtime/[a-z-]+\\.ts$',
      '^runtime/layout/picture/',
    ],
  },
  // The commands, and the program that has them, are the only ones that compose.
  { from: '^(?!runtime/command/|program\\.ts$|domsched\\.ts$)', to: ['^(?!runtime/command/)'] },
];

/** Where something begins: programs, threads and processes of their own, the page, and what others import by its name. */
const BEGINNINGS = [
  '^(domsched|program|bundle)\\.ts$',
  '^runtime/(index|hypervisor/fake/index|hypervisor/(qemu|xen)/watchdog-process|broker/broker-process|web/page/main|debian/build)\\.ts$',
  '^(codegen/build|extractor/memory/worker|kernels/[^/]+)\\.ts$',
];

const own = '^(runtime|extractor|codegen|kernels|generated)/|^(program|bundle|domsched)\\.ts$';

export default {
  forbidden: [
    { name: 'no-circles', severity: 'error', from: {}, to: { circular: true } },
    ...rooms.map(({ room, below }) => ({
      name: `up-from-${room.replaceAll('\\', '')}`,
      severity: 'error',
      from: { path: fileOf(room) },
      to: { path: own, pathNot: [fileOf(room), '^generated/', ...below.map(fileOf)] },
    })),
    ...NARROWER.map(({ from, to }) => ({
      name: `not-from-${from}`,
      severity: 'error',
      from: { path: from },
      to: { path: own, pathNot: to },
    })),
    {
      name: 'no-room',
      comment: 'a file that no row names',
      severity: 'error',
      from: { path: own, pathNot: ['^generated/', ...rooms.map(({ room }) => fileOf(room))] },
      to: {},
    },
    {
      name: 'dead',
      comment: 'a file that nothing but tests uses',
      severity: 'error',
      from: { path: BEGINNINGS },
      to: { path: '^(runtime|extractor|codegen)/', pathNot: [...BEGINNINGS, '\\.d\\.ts$'], reachable: false },
    },
  ],
  options: {
    doNotFollow: { path: ['node_modules', '^generated/'] },
    exclude: { path: ['^generated/', '^dist/'] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.json'] },
  },
};
