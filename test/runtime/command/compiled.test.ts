import { globSync, readFileSync } from 'node:fs';
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
