import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';

const read = (file: string) => readFileSync(path.join(projectDirectory, file), 'utf8');

test('every dependency has its reason in docs/dependencies.md, in its table, and no other package has', (t) => {
  const [, ...tables] = read('docs/dependencies.md').split(/^## /m);
  const named = tables.map((table) =>
    [...table.matchAll(/^\| `([^`]+)` \| (.{10,}) \|$/gm)].map(([, name]) => name!),
  );
  const { dependencies, devDependencies } = JSON.parse(read('package.json'));
  t.deepEqual(named, [Object.keys(dependencies).sort(), Object.keys(devDependencies).sort()]);
});

test('the lock file carries no download addresses, and one client of Prometheus alone', (t) => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { resolved?: string }>;
  };
  const entries = Object.entries(packages);
  t.true(entries.length > 100);
  t.deepEqual(
    entries.filter(([, { resolved }]) => resolved !== undefined).map(([name]) => name),
    [],
  );
  t.deepEqual(
    entries
      .map(([name]) => name)
      .filter((name) => /node_modules\/(prom-client|@prometheus-io\/client)$/.test(name)),
    ['node_modules/@prometheus-io/client'],
  );
});
