/**
 * Build step: dist/sbom.cdx.json, what the package is made of, in CycloneDX. npm makes it from the lock file; libdwarf,
 * which is in the WebAssembly and in no lock file, is added. No date and no random number: the same sources give the same
 * file.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { type ExecaError, execa } from 'execa';

/** For machines whose own npm is older than `npm sbom`, as Debian 12's is. */
const NPM = 'npm@11.19.1';

export interface Component {
  readonly 'bom-ref': string;
  readonly type: string;
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly licenses?: readonly { readonly license: { readonly id: string } }[];
}

/** As far as we look into it. */
export interface Sbom {
  readonly bomFormat: string;
  readonly specVersion: string;
  readonly metadata: { readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
}

/** A component that is not npm's. */
export function component(name: string, version: string, license: string, purl: string): Component {
  const id = `${name}@${version}`;
  return { 'bom-ref': id, type: 'library', name, version, purl, licenses: [{ license: { id: license } }] };
}

/** With components that the package itself contains. */
export function withComponents(sbom: Sbom, ...more: Component[]): Sbom {
  const root = sbom.metadata.component['bom-ref'];
  const ids = more.map((own) => own['bom-ref']);
  const dependencies = sbom.dependencies.map(({ ref, dependsOn = [] }) =>
    ref === root ? { ref, dependsOn: [...dependsOn, ...ids] } : { ref, dependsOn },
  );
  return { ...sbom, components: [...sbom.components, ...more], dependencies };
}

/** With these components alone, and what they need of each other. */
export function withOnly(sbom: Sbom, isThere: (one: Component) => boolean): Sbom {
  const components = sbom.components.filter(isThere);
  const ids = new Set([sbom.metadata.component, ...components].map((one) => one['bom-ref']));
  const dependencies = sbom.dependencies
    .filter(({ ref }) => ids.has(ref))
    .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((id) => ids.has(id)) }));
  return { ...sbom, components, dependencies };
}

/** A package of the lock file. */
export interface LockEntry {
  readonly version: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
}

/** What runs with domsched, by its place below the checkout. */
export async function lockedPackages(file = 'package-lock.json'): Promise<Map<string, LockEntry>> {
  const { packages } = JSON.parse(await readFile(file, 'utf8')) as { packages: Record<string, LockEntry> };
  return new Map(Object.entries(packages).filter(([place, { dev }]) => place !== '' && !dev));
}

/** As the SBOM calls a package. */
export function idOf(place: string, { version }: LockEntry): string {
  return `${place.split('node_modules/').pop()}@${version}`;
}

async function ofLockFile(): Promise<Sbom> {
  const args = ['sbom', '--package-lock-only', '--sbom-format=cyclonedx', '--sbom-type=application'];
  const { stdout } = await execa('npm', args).catch((error: ExecaError) => {
    if (!/Unknown command/.test(`${error.stderr}${error.stdout}`)) throw error;
    return execa('npm', ['exec', '--yes', `--package=${NPM}`, '--', 'npm', ...args]);
  });
  const { serialNumber: _number, ...sbom } = JSON.parse(stdout);
  // npm calls it by the name of its folder.
  const named = { ...sbom.metadata.component, name: 'domsched' };
  const ids = new Set([...(await lockedPackages())].map(([place, entry]) => idOf(place, entry)));
  // npm's own --omit=dev leaves out what a tool of ours needs as well.
  return withOnly({ ...sbom, metadata: { component: named, tools: sbom.metadata.tools } }, (one) =>
    ids.has(one['bom-ref']),
  );
}

if (import.meta.main) {
  const source = /^libdwarf\.wasm holds libdwarf (\S+),/m.exec(
    await readFile('dist/wasm/SOURCE.txt', 'utf8'),
  );
  if (source === null)
    throw new Error('dist/wasm/SOURCE.txt does not say which libdwarf there is: run `make wasm`');
  const version = source[1]!;
  const libdwarf = component('libdwarf', version, 'LGPL-2.1-only', `pkg:deb/debian/dwarfutils@${version}`);
  const sbom = withComponents(await ofLockFile(), libdwarf);
  await mkdir('dist', { recursive: true });
  await writeFile('dist/sbom.cdx.json', `${JSON.stringify(sbom, null, 1)}\n`);
}
