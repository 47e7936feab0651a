/**
 * `node kernels/xen.ts` downloads Debian's Xen, with everything that a dom0 needs from Debian, into `.cache/xen/`: a
 * folder that serves as root directory, with the dom0's kernel and modules beside it. Current files are kept.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { execa } from 'execa';
import { z } from 'zod';
import { closure, download, resolve, updateIndex } from './apt.ts';
import { KernelsError } from './error.ts';
import { debianKernels } from './manifest.ts';
import { projectDirectory } from './paths.ts';

const cache = path.join(projectDirectory, '.cache', 'xen');

/** The packages of a dom0; all others are dependencies of these. */
const ROOTS = ['xen-system-amd64', 'libxen-dev', 'libstdc++6'];
/**
 * Among dependencies, only programs of Xen and libraries are needed, because there is no installed system to maintain.
 */
const FOLLOWED = /^(xen-|xenstore-|lib(?!python|perl|debconf)|zlib1g)/;
/** The cloud flavour cannot be a dom0: it is built without CONFIG_XEN_DOM0. */
const DOM0_KERNEL = 'debian-6.1-amd64';
/** Modules that the dom0 needs; their dependencies are added. */
const MODULES = [
  ...['xen-privcmd', 'xenfs', 'xen-evtchn', 'xen-gntdev', 'xen-gntalloc'],
  ...['virtio_pci', 'virtio_console', '9p', '9pnet_virtio'],
];

const ProvenanceSchema = z.strictObject({
  /** Version of Xen's packages. */
  version: z.string(),
  /** `uname -r` of the dom0. */
  release: z.string(),
  packages: z.array(z.strictObject({ name: z.string(), version: z.string(), sha256: z.string() })),
  /** Modules in loading order. */
  modules: z.array(z.string()),
});

/** Debian's Xen on disk. All paths are absolute. */
export interface CachedXen {
  version: string;
  /** Uncompressed hypervisor, as a multiboot loader takes it. */
  hypervisor: string;
  /** Packed kernel of the dom0. */
  kernel: string;
  release: string;
  /** `.ko` files in loading order. */
  modules: readonly string[];
  /** The packages, unpacked over each other. */
  root: string;
  /** Path of Xen's own programs inside the root. */
  programs: string;
}

/**
 * Debian's Xen from the cache.
 * @throws KernelsError `kernel-absent`
 */
export function requireXen(directory = cache): CachedXen {
  const found = cachedXen(directory);
  if (found) return found;
  throw new KernelsError('kernel-absent', `Xen is not in ${directory}: run \`make xen\``, { directory });
}

function cachedXen(directory: string): (CachedXen & { packages: readonly string[] }) | null {
  const folder = path.join(directory, 'current');
  const file = path.join(folder, 'provenance.json');
  if (!existsSync(file)) return null;
  const parsed = ProvenanceSchema.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) return null;
  const { version, release, modules, packages } = parsed.data;
  const root = path.join(folder, 'root');
  const programs = readdirSync(path.join(root, 'usr/lib')).find((name) => /^xen-\d/.test(name));
  const hypervisor = path.join(folder, 'xen');
  if (programs === undefined || !existsSync(hypervisor)) return null;
  return {
    version,
    hypervisor,
    kernel: path.join(folder, 'vmlinuz'),
    release,
    modules: modules.map((name) => path.join(folder, 'modules', `${name}.ko`)),
    root,
    programs: `/usr/lib/${programs}/bin`,
    packages: packages.map(({ sha256 }) => sha256),
  };
}

/**
 * Downloads Xen into the cache, where it appears only once complete.
 * @returns one line about what was done
 * @throws KernelsError `package-not-found`, `download-failed`, `package-broken`
 */
export async function fetchXen(directory = cache): Promise<string> {
  const { release, image } = await resolve(debianKernels().find(({ id }) => id === DOM0_KERNEL)!);
  const packages = [...(await closure(ROOTS, FOLLOWED)), image];
  const version = packages.find(({ name }) => name === ROOTS[0])!.version;
  const known = cachedXen(directory);
  if (known && packages.map(({ sha256 }) => sha256).join() === known.packages.join()) {
    return `Xen ${version} is there`;
  }
  const incoming = path.join(directory, 'incoming');
  const downloads = path.join(directory, 'download');
  const root = path.join(incoming, 'root');
  await rm(incoming, { recursive: true, force: true });
  await mkdir(root, { recursive: true });
  try {
    for (const wanted of packages) {
      const deb = await download(wanted, downloads);
      if (wanted !== image) await execa('dpkg-deb', ['--extract', deb, root]);
      else await extractKernel(deb, release, incoming);
      await rm(deb);
    }
    await extractHypervisor(root, path.join(incoming, 'xen'));
    const modules = await loadOrder(path.join(incoming, 'modules'), MODULES);
    const provenance: z.infer<typeof ProvenanceSchema> = {
      version,
      release,
      packages: packages.map(({ name, version: of, sha256 }) => ({ name, version: of, sha256 })),
      modules,
    };
    await writeFile(path.join(incoming, 'provenance.json'), `${JSON.stringify(provenance, null, 2)}\n`);
    await rm(path.join(directory, 'current'), { recursive: true, force: true });
    await rename(incoming, path.join(directory, 'current'));
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  return `Xen ${version} fetched, with ${packages.length} packages and Linux ${release} as dom0`;
}

async function extractKernel(deb: string, release: string, directory: string): Promise<void> {
  const tree = path.join(directory, 'image');
  await mkdir(tree);
  const wanted = [`./boot/vmlinuz-${release}`, './lib/modules/*/kernel/*.ko*'];
  await execa('dpkg-deb', ['--fsys-tarfile', deb], { buffer: false }).pipe('tar', [
    ...['-x', '-f', '-', '-C', tree, '--wildcards', ...wanted],
  ]);
  await rename(path.join(tree, 'boot', `vmlinuz-${release}`), path.join(directory, 'vmlinuz'));
  const modules = path.join(directory, 'modules');
  await mkdir(modules);
  for (const file of await readdir(tree, { recursive: true })) {
    if (/\.ko(\.xz|\.zst)?$/.test(file)) {
      await rename(path.join(tree, file), path.join(modules, path.basename(file)));
    }
  }
  await rm(tree, { recursive: true });
}

/** Debian packs the hypervisor; a multiboot loader needs it unpacked. */
async function extractHypervisor(root: string, target: string): Promise<void> {
  const boot = path.join(root, 'boot');
  const packed = (await readdir(boot)).find((name) => /^xen-.*\.gz$/.test(name));
  if (packed === undefined) {
    throw new KernelsError('package-broken', `there is no hypervisor in ${boot}`, { directory: boot });
  }
  await execa('gzip', ['-dc', path.join(boot, packed)], { stdout: { file: target } });
}

/**
 * Keeps only the wanted modules of a folder and their dependencies, decompressed.
 * @returns their names, each after its dependencies
 */
async function loadOrder(directory: string, wanted: readonly string[]): Promise<string[]> {
  const files = new Map<string, string>();
  for (const file of await readdir(directory)) files.set(moduleName(file), path.join(directory, file));
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    if (order.includes(name)) return;
    const file = files.get(name);
    // Built into the kernel.
    if (file === undefined) return;
    const plain = path.join(directory, `${name}.ko`);
    if (file.endsWith('.xz')) await execa('xz', ['-dc', file], { stdout: { file: plain } });
    else if (file.endsWith('.zst')) await execa('zstd', ['-dcq', file], { stdout: { file: plain } });
    else await rename(file, plain);
    const depends = /\0depends=([^\0]*)\0/.exec((await readFile(plain)).toString('latin1'))?.[1] ?? '';
    for (const needed of depends.split(',').filter(Boolean)) await visit(needed.replaceAll('-', '_'));
    order.push(name);
  };
  for (const name of wanted) await visit(name.replaceAll('-', '_'));
  for (const file of await readdir(directory)) {
    if (!order.includes(file.replace(/\.ko$/, ''))) await rm(path.join(directory, file));
  }
  return order;
}

/** Module names have underscores, whatever the file's name has. */
function moduleName(file: string): string {
  return file.replace(/\.ko(\.xz|\.zst)?$/, '').replaceAll('-', '_');
}

if (import.meta.main) {
  try {
    console.log(await fetchXen());
  } catch (first) {
    if (!(first instanceof KernelsError)) throw first;
    try {
      if (process.getuid?.() !== 0) throw first;
      await updateIndex();
      console.log(await fetchXen());
    } catch (error) {
      // Without the archive an older Xen will do.
      const known = cachedXen(cache);
      if (!known || !(error instanceof KernelsError)) throw error;
      console.error(`xen: ${error.message}\nxen: going on with ${known.version}`);
    }
  }
}
