import path from 'node:path';

// Node's own type stripping runs the .ts tests; live tests boot virtual machines and may take minutes.
export default {
  files: ['test/**/*.test.ts'],
  extensions: { ts: 'module' },
  timeout: '20m',
  concurrency: 2,
  // A test sees no machine of another one's, or of whoever runs the tests, unless it asks for them.
  environmentVariables: {
    DOMSCHED_CONNECT: 'qemu:',
    // What Node made of our TypeScript is kept: a test file starts in half the time.
    NODE_COMPILE_CACHE: path.join(import.meta.dirname, '.cache', 'compile'),
  },
};
