/**
 * `node kernels/suites.ts [--all | --suite NAME…]` downloads kernels of all of Debian's suites into
 * `.cache/suites/kernels/` as they are shipped: only the packed image. Each suite has its own lists and cache; nothing
 * is installed and the machine's own apt does not change. The archive tells which kernels exist: the newest point
 * release of each series. Without options it takes those that `make test` uses; with `--suite`, the newest of each
 * series in these suites.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { z } from 'zod';
import { type AptOptions, type ArchivePackage, download, isNewer, show, updateIndex } from './apt.ts';
import { checksums, extractFile } from './deb.ts';
import { KernelsError } from './error.ts';
import { projectDirectory } from './paths.ts';

/** Folder for all of this; another one with kernels of the same form is of `own.ts`. */
export const suitesCache = path.resolve(
  projectDirectory,
  process.env.DOMSCHED_SUITES_CACHE || '.cache/suites',
);

const SUITES = [
  'bullseye',
  'bookworm',
  'bookworm-backports',
  'trixie',
  'trixie-backports',
  'sid',
  'experimental',
];
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** How long an index counts as current. */
export const INDEX_MS = 24 * 3600e3;
/** "x86: Use generic TIF bits", 6.18: the middle series is this one, or the next that exists. */
const MIDDLE = [6, 18] as const;
/** Flavours besides `cloud`, for the newest series. */
const FLAVOURS = ['amd64', 'rt'] as const;

const ProvenanceSchema = z.strictObject({
  release: z.string(),
  suite: z.string(),
  package: z.strictObject({ name: z.string(), version: z.string(), sha256: z.string() }),
});

/** Where a kernel on disk is from. */
export type SuiteProvenance = z.infer<typeof ProvenanceSchema>;

/** A kernel that a suite's archive offers now. */
interface Offer {
  /** `uname -r`. */
  readonly release: string;
  readonly suite: string;
  readonly package: ArchivePackage;
}

/** A kernel of a suite on disk. */
export interface SuiteKernel {
  readonly release: string;
  readonly suite: string;
  /** Packed, as it boots. */
  readonly vmlinuz: string;
  /** The same kernel with its debug information, if it was built here and has no types of its own (BTF). */
  readonly vmlinux?: string;
}

/** The fetched kernels, oldest series first. Incomplete folders are skipped. */
export function suiteKernels(directory = suitesCache): SuiteKernel[] {
  const kernels = path.join(directory, 'kernels');
  if (!existsSync(kernels)) return [];
  return readdirSync(kernels)
    .flatMap((release) => cached(release, directory) ?? [])
    .sort((a, b) => a.release.localeCompare(b.release, 'en', { numeric: true }));
}

/** Those of these kernels that `make test` uses: the oldest and the newest series, and one in the middle. */
export function spanning<K extends { readonly release: string }>(kernels: readonly K[]): K[] {
  const cloud = kernels.filter(({ release }) => release.endsWith('-cloud-amd64'));
  const middle = cloud.find(({ release }) => compareSeries(seriesOf(release), MIDDLE) >= 0);
  return [...new Set([cloud[0], middle, cloud.at(-1)])].filter((kernel) => kernel !== undefined);
}

/** Value for `XDG_DATA_HOME` with which the layouts of these kernels are found. */
export const suitesData = suitesCache;

/** How a kernel's layout was extracted from its image. */
export interface ExtractionCost {
  readonly seconds: number;
  readonly structures: number;
  readonly symbols: number;
  /** Digest of the request. */
  readonly asked?: string;
}

/** The file with this record. */
export function extractionFile({ vmlinuz }: SuiteKernel): string {
  return path.join(path.dirname(vmlinuz), 'extraction.json');
}

/** How a kernel's layout was extracted from its image; null if it was not. */
export function extractionOf(kernel: SuiteKernel): ExtractionCost | null {
  const file = extractionFile(kernel);
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as ExtractionCost) : null;
}

function cached(release: string, directory: string): (SuiteKernel & { sha256: string }) | null {
  const folder = path.join(directory, 'kernels', release);
  const provenance = path.join(folder, 'provenance.json');
  if (!existsSync(provenance)) return null;
  const parsed = ProvenanceSchema.safeParse(JSON.parse(readFileSync(provenance, 'utf8')));
  if (!parsed.success || parsed.data.release !== release) return null;
  const vmlinux = path.join(folder, 'vmlinux');
  return {
    release,
    suite: parsed.data.suite,
    vmlinuz: path.join(folder, 'vmlinuz'),
    ...(existsSync(vmlinux) && { vmlinux }),
    sha256: parsed.data.package.sha256,
  };
}

function seriesOf(release: string): readonly [number, number] {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release)!;
  return [Number(major), Number(minor)];
}

function compareSeries(a: readonly [number, number], b: readonly [number, number]): number {
  return a[0] - b[0] || a[1] - b[1];
}

/** Source of suites: an address for apt, and the source option that says why it is trusted. */
export interface Archive {
  readonly uri: string;
  readonly trust: string;
}

async function debian(): Promise<Archive> {
  return { uri: await archiveUri(), trust: `signed-by=${KEYRING}` };
}

/** Options that make apt see one suite and, of the machine, only where its archive is. */
export async function aptFor(suite: string, directory: string, archive?: Archive): Promise<AptOptions> {
  const own = path.join(directory, 'apt', suite);
  for (const folder of ['lists/partial', 'cache/archives/partial'])
    await mkdir(path.join(own, folder), { recursive: true });
  const sources = path.join(own, 'sources.list');
  const { uri, trust } = archive ?? (await debian());
  await writeFile(sources, `deb [${trust}] ${uri} ${suite} main\n`);
  return Object.entries({
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::State::lists': path.join(own, 'lists'),
    'Dir::State::status': '/dev/null',
    'Dir::Cache': path.join(own, 'cache'),
    'APT::Architecture': 'amd64',
    'Acquire::Languages': 'none',
  }).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

/** Address of this machine's Debian archive. @throws KernelsError `package-not-found` */
export async function archiveUri(): Promise<string> {
  const format = ['--format', '$(LABEL) $(REPO_URI)', 'Created-By: Packages'];
  const { stdout } = await execa('apt-get', ['indextargets', ...format], { reject: false });
  const uri = /^Debian (\S+)$/m.exec(stdout ?? '')?.[1];
  if (uri !== undefined) return uri;
  throw new KernelsError(
    'package-not-found',
    "apt on this machine has no archive of Debian's among its sources: run `apt-get update`, or add one",
  );
}

/** Updates a suite's index if it is out of date. */
export async function refresh(
  apt: AptOptions,
  suite: string,
  directory: string,
  maxAgeMs: number,
): Promise<void> {
  const stamp = path.join(directory, 'apt', suite, 'updated');
  const age = Date.now() - (statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  if (age < maxAgeMs) return;
  await updateIndex(apt);
  await writeFile(stamp, '');
}

/** The kernels of one flavour that a suite offers. */
async function offers(suite: string, flavour: string, apt: AptOptions): Promise<Offer[]> {
  const { stdout } = await execa('apt-cache', ['pkgnames', 'linux-', ...apt], { reject: false });
  // Since 6.19 images are in linux-binary-RELEASE, and linux-image-RELEASE only depends on that.
  const pattern = new RegExp(
    `^linux-(image|binary)-(\\d+\\.\\d+.*-${flavour === 'amd64' ? '' : `${flavour}-`}amd64)$`,
  );
  const byRelease = new Map<string, string>();
  for (const name of stdout.split('\n').sort()) {
    const release = pattern.exec(name)?.[2];
    if (release === undefined || (flavour === 'amd64' && /-(cloud|rt)-amd64$/.test(release))) continue;
    if (!byRelease.has(release)) byRelease.set(release, name);
  }
  const packages =
    byRelease.size > 0 ? await show([...byRelease.values()], apt) : new Map<string, ArchivePackage>();
  return [...byRelease].flatMap(([release, name]) => {
    const found = packages.get(name);
    return found === undefined ? [] : [{ release, suite, package: found }];
  });
}

/** The newest point release of each series over all suites, oldest series first. */
async function newest(all: readonly Offer[]): Promise<Offer[]> {
  const bySeries = new Map<string, Offer>();
  for (const offer of all) {
    const series = seriesOf(offer.release).join('.');
    const known = bySeries.get(series);
    if (known === undefined || (await isNewer(offer.package.version, known.package.version)))
      bySeries.set(series, offer);
  }
  return [...bySeries.values()].sort((a, b) => compareSeries(seriesOf(a.release), seriesOf(b.release)));
}

/** Downloads one kernel into the cache, where it appears only once complete. */
async function fetchOffer(offer: Offer, apt: AptOptions, directory: string): Promise<string> {
  const { release, suite } = offer;
  const { name, version, sha256 } = offer.package;
  if (cached(release, directory)?.sha256 === sha256) return `${release} is there (${suite}, ${version})`;
  const incoming = path.join(directory, 'incoming', release);
  await rm(incoming, { recursive: true, force: true });
  await mkdir(incoming, { recursive: true });
  try {
    const deb = await download(offer.package, path.join(directory, 'download'), { apt });
    const image = [...(await checksums(deb)).keys()].find((file) => /(^|\/)vmlinuz(-[^/]*)?$/.test(file));
    if (image === undefined)
      throw new KernelsError('package-broken', `there is no kernel image in ${deb}`, { deb });
    await extractFile(deb, `./${image}`, path.join(incoming, 'vmlinuz'));
    const provenance: SuiteProvenance = {
      release,
      suite,
      package: { name, version, sha256 },
    };
    await writeFile(path.join(incoming, 'provenance.json'), `${JSON.stringify(provenance, null, 2)}\n`);
    const folder = path.join(directory, 'kernels', release);
    await rm(folder, { recursive: true, force: true });
    await mkdir(path.dirname(folder), { recursive: true });
    await rename(incoming, folder);
    await rm(deb);
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  return `${release} fetched (${suite}, ${version})`;
}

export interface SuiteFetchOptions {
  /** Every series and flavour, not only those that the tests use. */
  readonly all: boolean;
  /** The newest of each series in these suites; in all suites if absent. */
  readonly only?: readonly string[];
  /** Greatest age of an index, in ms. */
  readonly maxAgeMs: number;
  readonly archive?: Archive;
}

/**
 * Downloads kernels into a cache.
 * @returns a line for each
 * @throws KernelsError
 */
export async function fetchKernels(
  directory: string,
  { all, only = [], maxAgeMs, archive }: SuiteFetchOptions,
): Promise<string[]> {
  const apt = new Map<string, AptOptions>();
  const cloud: Offer[] = [];
  const suites = only.length > 0 ? only : SUITES;
  for (const suite of suites) {
    const options = await aptFor(suite, directory, archive);
    await refresh(options, suite, directory, maxAgeMs);
    apt.set(suite, options);
    cloud.push(...(await offers(suite, 'cloud', options)));
  }
  const series = await newest(cloud);
  const wanted = all || only.length > 0 ? series : spanning(series);
  const last = series.at(-1);
  if (last === undefined)
    throw new KernelsError(
      'package-not-found',
      `no suite of ${suites.join(', ')} has a kernel: run \`make kernels-all\` again`,
    );
  if (all) {
    for (const flavour of FLAVOURS) {
      const others = await offers(last.suite, flavour, apt.get(last.suite)!);
      wanted.push(...(await newest(others)).slice(-1));
    }
  }
  const lines: string[] = [];
  for (const offer of wanted) lines.push(await fetchOffer(offer, apt.get(offer.suite)!, directory));
  return lines;
}

if (import.meta.main) {
  const { all, suite } = parseArgs({
    options: {
      all: { type: 'boolean', default: false },
      suite: { type: 'string', multiple: true, default: [] },
    },
  }).values;
  try {
    // An old index may name packages that are gone.
    const fetch = (maxAgeMs: number) => fetchKernels(suitesCache, { all, only: suite, maxAgeMs });
    for (const line of await fetch(INDEX_MS).catch(() => fetch(0))) console.log(line);
  } catch (error) {
    // Without the archive the kernels here will do.
    const here = suiteKernels();
    const known = error instanceof KernelsError || (error as { command?: string }).command !== undefined;
    if (!known || here.length < 3) throw error;
    console.error(
      `suites: ${(error as Error).message}\nsuites: going on with ${here.map(({ release }) => release).join(', ')}`,
    );
  }
}
