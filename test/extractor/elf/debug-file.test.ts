import { appendFileSync, copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { type OpenOptions, openKernelFile } from '../../../extractor/elf/open.ts';
import { buildBootImage } from './build-elf.ts';
import { scratch } from './scratch.ts';
import { nmSymbols, readelfBuildId, readelfSections, tool } from './tools.ts';

const SOURCE = `
const char linux_banner[] = "Linux version 5.4.0-made (me@host) (gcc) #7 SMP\\n";
struct rq { int nr; } runqueues;
int main(void) { return runqueues.nr + linux_banner[0]; }
`;

/** A program split by objcopy as distributions split a kernel: `full`, `stripped`, `split.debug`. */
function split(at: (name: string) => string, buildId: 'sha1' | 'none'): void {
  writeFileSync(at('k.c'), SOURCE);
  tool('gcc', '-g', `-Wl,--build-id=${buildId}`, '-o', at('full'), at('k.c'));
  tool('objcopy', '--only-keep-debug', at('full'), at('split.debug'));
  tool('objcopy', '--strip-all', `--add-gnu-debuglink=${at('split.debug')}`, at('full'), at('stripped'));
}

function move(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  renameSync(from, to);
}

async function hasDebug(path: string, options: OpenOptions): Promise<boolean> {
  await using file = await openKernelFile(path, options);
  return file.section('.debug_info') !== null;
}

test('stripped file and debug file together are the whole', async (t) => {
  const at = scratch(t);
  split(at, 'sha1');
  const id = readelfBuildId(at('full'))!;
  move(at('split.debug'), at(`root/.build-id/${id.slice(0, 2)}/${id.slice(2)}.debug`));
  await using file = await openKernelFile(at('stripped'), { debugRoots: [at('nowhere'), at('root')] });
  await using full = await openKernelFile(at('full'), { debugRoots: [] });
  t.is(file.buildId, id);
  for (const { name, size } of readelfSections(at('full'))) {
    if (name === '.shstrtab') continue;
    const section = file.section(name)!;
    t.is(section.size, size, name);
    t.true(Buffer.from(section.read()).equals(full.section(name)!.read()), name);
  }
  t.is(file.banner(), 'Linux version 5.4.0-made (me@host) (gcc) #7 SMP');
  t.deepEqual(
    [file.lookup(['runqueues']).get('runqueues')!.address],
    nmSymbols(at('full')).get('runqueues')!,
  );
  t.true(tool('readelf', '--debug-dump=info', file.elfPath!).includes('DW_TAG_structure_type'));
  t.is(await file.sha256(), tool('sha256sum', at('stripped')).slice(0, 64));
});

test('.gnu_debuglink: beside the file, in .debug, below the roots', async (t) => {
  const at = scratch(t);
  split(at, 'none');
  copyFileSync(at('split.debug'), at('keep'));
  t.is(readelfBuildId(at('stripped')), null);
  const options = { debugRoots: [at('root')] };
  t.true(await hasDebug(at('stripped'), options));
  move(at('split.debug'), at('.debug/split.debug'));
  t.true(await hasDebug(at('stripped'), options));
  move(at('.debug/split.debug'), at(`root${dirname(at('stripped'))}/split.debug`));
  t.true(await hasDebug(at('stripped'), options));
  t.false(await hasDebug(at('stripped'), { debugRoots: [] }));
  // Through a link in another directory.
  mkdirSync(at('other'));
  tool('ln', '-s', at('stripped'), at('other/link'));
  copyFileSync(at('keep'), at('split.debug'));
  t.true(await hasDebug(at('other/link'), { debugRoots: [] }));
});

test('a debug file of another build is passed over', async (t) => {
  const at = scratch(t);
  split(at, 'none');
  appendFileSync(at('split.debug'), 'x');
  t.false(await hasDebug(at('stripped'), { debugRoots: [] }));

  const with_ = (name: string): string => at(`ids-${name}`);
  split(with_, 'sha1');
  const id = readelfBuildId(with_('full'))!;
  writeFileSync(with_('k.c'), `${SOURCE}\nint another_build;\n`);
  tool('gcc', '-g', '-Wl,--build-id=sha1', '-o', with_('other'), with_('k.c'));
  const place = at(`root/.build-id/${id.slice(0, 2)}/${id.slice(2)}.debug`);
  move(with_('other'), place);
  renameSync(with_('split.debug'), at('aside'));
  t.false(await hasDebug(with_('stripped'), { debugRoots: [at('root')] }));
  renameSync(at('aside'), place);
  t.true(await hasDebug(with_('stripped'), { debugRoots: [at('root')] }));
});

test('the right debug file, but damaged: said, not passed over', async (t) => {
  const at = scratch(t);
  split(at, 'sha1');
  const id = readelfBuildId(at('full'))!;
  const place = at(`root/.build-id/${id.slice(0, 2)}/${id.slice(2)}.debug`);
  move(at('split.debug'), place);
  tool('truncate', '-s', '-100', place);
  const error = await t.throwsAsync(openKernelFile(at('stripped'), { debugRoots: [at('root')] }), {
    code: 'truncated',
  });
  t.true(error.message.includes(basename(place)));
});

test('the kernel of a debug file is found beside it, above .debug, and where a root says; packed too', async (t) => {
  const at = scratch(t);
  split(at, 'sha1');
  tool('mkdir', '-p', at('root'), at('aside'));
  const bannerOf = async (path: string): Promise<string | null> => {
    await using file = await openKernelFile(path, { debugRoots: [at('root')] });
    return file.banner();
  };
  const banner = 'Linux version 5.4.0-made (me@host) (gcc) #7 SMP';
  move(at('full'), at('aside/full'));
  t.is(await bannerOf(at('split.debug')), banner);
  for (const place of ['.debug/split.debug', `root${at('split.debug')}`]) {
    mkdirSync(dirname(at(place)), { recursive: true });
    copyFileSync(at('split.debug'), at(place));
    t.is(await bannerOf(at(place)), banner, place);
  }
  // Another build of the same name, a file that is damaged and a debug file say nothing of this one.
  copyFileSync(at('stripped'), at('aside/stripped'));
  writeFileSync(at('k.c'), `${SOURCE}\nint another_build;\n`);
  tool('gcc', '-g', '-Wl,--build-id=sha1', '-o', at('stripped'), at('k.c'));
  tool('objcopy', '--only-keep-debug', at('stripped'), at('a.debug'));
  writeFileSync(at('damaged'), '\x7fELF');
  t.is(await bannerOf(at('split.debug')), null);
  // A boot image has the kernel's usual name.
  const payload = gzipSync(readFileSync(at('aside/stripped')));
  writeFileSync(at('vmlinuz-5.4.0-made'), buildBootImage(payload));
  copyFileSync(at('split.debug'), at('vmlinux-5.4.0-made.debug'));
  t.is(await bannerOf(at('vmlinux-5.4.0-made.debug')), banner);
});

test('the debug file itself can be given', async (t) => {
  const at = scratch(t);
  split(at, 'sha1');
  mkdirSync(at('alone'));
  copyFileSync(at('split.debug'), at('alone/split.debug'));
  await using file = await openKernelFile(at('alone/split.debug'), { debugRoots: [] });
  t.is(file.buildId, readelfBuildId(at('full')));
  t.true(file.section('.debug_info')!.size > 0);
  t.is(file.section('.rodata')!.size, 0);
  t.is(file.banner(), null);
});
