import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';
import type { LockEntry, Sbom } from '../../sbom.ts';

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

test('the SBOM has every package that runs with domsched, by the lock file, its hash, and libdwarf', async (t) => {
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, LockEntry> };
  const locked = Object.entries(packages)
    .filter(([name, { dev }]) => name !== '' && !dev)
    .map(([name, { version, integrity }]) => [`${name.split('node_modules/').pop()}@${version}`, integrity]);
  const { components, metadata, dependencies, ...sbom } = JSON.parse(read('dist/sbom.cdx.json')) as Sbom;
  t.like(sbom, { bomFormat: 'CycloneDX', specVersion: '1.5' });
  t.like(metadata.component, { name: 'domsched', version: JSON.parse(read('package.json')).version });
  t.false('timestamp' in metadata || 'serialNumber' in sbom, 'the same sources give the same file');
  const inside = components.filter(({ purl }) => !purl.startsWith('pkg:npm/'));
  t.deepEqual(
    inside.map(({ name }) => name),
    ['libdwarf'],
  );
  t.true(read('dist/wasm/SOURCE.txt').startsWith(`libdwarf.wasm holds libdwarf ${inside[0]!.version},`));
  const listed = components.filter((one) => !inside.includes(one));
  const integrity = (hex: string) => `sha512-${Buffer.from(hex, 'hex').toString('base64')}`;
  t.deepEqual(
    listed.map(({ 'bom-ref': id, hashes }) => `${id} ${integrity(hashes![0]!.content)}`).sort(),
    [...new Set(locked.map(([id, its]) => `${id} ${its}`))].sort(),
  );
  t.deepEqual(
    listed.filter(({ licenses }) => !licenses?.length).map(({ name }) => name),
    [],
  );
  const known = new Set([metadata.component, ...components].map(({ 'bom-ref': id }) => id));
  t.deepEqual(
    dependencies.flatMap(({ dependsOn = [] }) => dependsOn).filter((id) => !known.has(id)),
    [],
  );
});
