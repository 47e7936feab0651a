import './test/compiled.js';

// Node's own type stripping runs the .ts tests; live tests boot virtual machines and may take minutes.
export default {
  files: ['test/**/*.test.ts'],
  extensions: { ts: 'module' },
  require: ['./test/compiled.js'],
  timeout: '20m',
  concurrency: 2,
  // A test sees no machine of another one's, or of whoever runs the tests, nor what they keep, unless it asks for them: no
  // folder can be there.
  environmentVariables: { DOMSCHED_CONNECT: 'qemu:', DOMSCHED_CACHE_DIR: '/dev/null/none' },
};
