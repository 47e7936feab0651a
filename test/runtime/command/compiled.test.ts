import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import ts from 'typescript';
import { projectDirectory } from '../../../kernels/paths.ts';

/** Those of tsconfig.json that say what becomes of imports and of `using`. */
const compilerOptions: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2024,
  module: ts.ModuleKind.NodeNext,
  rewriteRelativeImportExtensions: true,
  verbatimModuleSyntax: true,
};

/** Imports of source files, which are not there where the program is installed. */
const sourceImports = (text: string) =>
  text.match(/\b(?:from|import|import\()\s*(['"`])\.[^'"`]*\.ts\1/g) ?? [];

test('the compiled program imports compiled files only', (t) => {
  const dist = path.join(projectDirectory, 'dist');
  const files = globSync('**/*.js', { cwd: dist });
  t.true(files.includes('domsched.js'), '`make build` makes it');
  const sources = files.filter(
    (file) => sourceImports(readFileSync(path.join(dist, file), 'utf8')).length > 0,
  );
  t.deepEqual(sources, []);
});

test('no import stands in a function with `await using`, where TypeScript 5.9 leaves its ending as it is', (t) => {
  const compiled = (text: string) =>
    ts.transpileModule(text, { compilerOptions, fileName: 'x.mts' }).outputText;
  const inside = "await using a = b(); return await import('./c.ts');";
  t.deepEqual(sourceImports(compiled(`export async function f() { ${inside} }`)), ["import('./c.ts'"]);
  t.deepEqual(sourceImports(compiled("export async function f() { return await import('./c.ts'); }")), []);
  const files = globSync(['*.ts', '{codegen,extractor,kernels,runtime}/**/*.ts'], { cwd: projectDirectory });
  const affected = files.filter((file) => {
    const text = readFileSync(path.join(projectDirectory, file), 'utf8');
    return /\busing\b/.test(text) && /\bimport\(/.test(text) && sourceImports(compiled(text)).length > 0;
  });
  t.deepEqual(affected, [], 'give the import a function of its own');
});

test('what the bundled program loads later is there, and libraries are not part of it', (t) => {
  const folder = path.join(projectDirectory, 'dist', 'bundle');
  const text = readFileSync(path.join(folder, 'program.cjs'), 'utf8');
  const rooms = [...text.matchAll(/\bimport\("(\.[^"]+)"\)/g)].map(([, room]) => room!);
  t.true(rooms.includes('../runtime/command/ps.js'), 'commands of the runtime');
  t.true(rooms.includes('../codegen/index.js'), 'the code generator');
  t.deepEqual(
    rooms.filter((room) => !existsSync(path.join(folder, room))),
    [],
  );
  t.regex(text, /\brequire\("commander"\)/);
  // Each bundled file is named in a comment.
  t.deepEqual(text.match(/^\/\/ .*node_modules.*$/gm), null);
});
