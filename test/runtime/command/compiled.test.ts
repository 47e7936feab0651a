import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../../kernels/paths.ts';

test('the compiled program imports compiled files only', (t) => {
  const dist = path.join(projectDirectory, 'dist');
  const files = globSync('**/*.js', { cwd: dist });
  t.true(files.includes('domsched.js'), '`make build` makes it');
  const sources = files.filter((file) =>
    /(from|import\()\s*['"]\.[^'"]*\.ts['"]/.test(readFileSync(path.join(dist, file), 'utf8')),
  );
  t.deepEqual(sources, []);
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
