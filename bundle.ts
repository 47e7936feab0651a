/**
 * Build step, after the compiler: dist/program.js with all of the extractor in one CommonJS file, from which
 * dist/domsched.js starts an extraction. That takes a tenth of a second, and a tenth of it is saved where sixty modules
 * need not be found, read and linked one by one. The other commands, which would only have more to read, the code
 * generator and libraries stay as they are.
 */
import { build } from 'esbuild';

await build({
  entryPoints: ['dist/program.js'],
  // One level below dist/, as the modules are that look from where they are for package.json.
  outfile: 'dist/bundle/program.cjs',
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  packages: 'external',
  // The errors' class is shared with what stays outside: the program knows its own errors by it.
  external: ['./dist/runtime/command/*', './dist/codegen/*', './dist/extractor/known-error.js'],
  define: { 'import.meta.url': 'bundleUrl' },
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  logLevel: 'warning',
});
