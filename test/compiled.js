import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

// Files are stripped of their types and compiled once, not at each start of a test file: half of what a start costs.
// Not by NODE_COMPILE_CACHE: programs that a test starts, often from a temporary folder, would fill the cache.
enableCompileCache(fileURLToPath(new URL('../.cache/compiled', import.meta.url)));
