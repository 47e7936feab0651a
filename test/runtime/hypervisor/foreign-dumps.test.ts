import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import type { DomschedError } from '../../../runtime/error.ts';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { scratchFolder } from '../../extractor/fixture.ts';
import { firstBytes, framesOf, lime } from './dump-files.ts';

/** Numbers as little-endian words of four bytes. */
function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4);
  return bytes;
}

/** How files begin that are no dump read here: by the documents of those formats. */
const HEADS: readonly (readonly [Buffer, RegExp])[] = [
  [words(0x4c4d5641, 2), /compressed dump of AVML; take it again without --compress/],
  [words(0x4c694d45, 2), /compressed LiME dump \(version 2\)/],
  [words(0xbed2bed2, 8, 90), /VMware.*\.vmem.*low=3G/],
  [words(0xbed3bed3, 8, 90), /VMware.*\.vmem.*low=3G/],
  [Buffer.from('QEVM\0\0\0\x03'), /saved state of QEMU.*-incoming.*dump-guest-memory/],
  [Buffer.from('LibvirtQemudSave'), /libvirt.*virsh restore --paused.*virsh dump --memory-only/],
  [Buffer.from('LibvirtQemudPart'), /libvirt.*virsh restore --paused.*virsh dump --memory-only/],
  [Buffer.from('Xen saved domain, xl format\n \0 \r'), /Xen.*xl restore .*xl dump-core/],
  [Buffer.concat([Buffer.alloc(8, 0xff), Buffer.from('XENF')]), /Xen.*xl restore .*xl dump-core/],
  [Buffer.from('PAGEDU64'), /crash dump of Windows/],
  [Buffer.from('QFI\xfb', 'latin1'), /image of a disk.*dump-guest-memory/],
  [Buffer.from('HIBR'), /hibernation file of Windows/],
  [Buffer.concat([Buffer.alloc(4086), Buffer.from('S1SUSPEND\0')]), /swap partition/],
  [Buffer.from('PK\x03\x04'), /zip archive/],
  [Buffer.from('\x7fVirtualBox SavedState V2.0\n'), /VirtualBox/],
  [Buffer.from('DISKDUMP'), /diskdump/],
];

test('formats that are not read are named, with the way to a dump that is', (t) => {
  const file = path.join(scratchFolder(t), 'dump');
  for (const [head, named] of HEADS) {
    writeFileSync(file, Buffer.concat([head, Buffer.alloc(8192 - head.length)]));
    const error = t.throws(() => new DumpDomain(file), { code: 'dump-unsupported' });
    t.regex(error!.message, named);
  }
});

for (const packer of ['gzip', 'xz', 'zstd', 'bzip2', 'lz4', 'lzop']) {
  test(`a dump packed with ${packer}: the command that the message gives makes it readable`, async (t) => {
    const folder = path.join(scratchFolder(t), "it's here");
    await execa('mkdir', [folder]);
    const file = path.join(folder, 'guest memory');
    const dump = lime([{ physical: 0x1000, bytes: framesOf(2, 7) }]);
    const { stdout } = await execa(packer, ['-c'], { input: dump, encoding: 'buffer' });
    writeFileSync(file, stdout);
    const error = t.throws(() => new DumpDomain(file), { code: 'dump-unsupported' }) as DomschedError;
    const command = /; unpack it first: (.*)$/.exec(error.message)?.[1];
    t.truthy(command, error.message);
    await execa('sh', ['-c', command!]);
    t.deepEqual(readFileSync(`${file}.dump`), dump);
    await using domain = new DumpDomain(`${file}.dump`);
    t.deepEqual(firstBytes(domain, [0, 1, 2]), [null, 7, 8]);
  });
}

test('raw memory says what it is taken for, and which holes a machine of its size may have', async (t) => {
  const file = path.join(scratchFolder(t), 'raw');
  writeFileSync(file, framesOf(1));
  const assumption = async (bytes: number, low?: number) => {
    truncateSync(file, bytes);
    await using domain = new DumpDomain(file, low);
    return domain.identity.assumption ?? '';
  };
  t.regex(await assumption(2 ** 30), /raw dump.*dump:FILE,low=BYTES/);
  t.notRegex(await assumption(2 ** 30), /low=[23]G/);
  t.regex(await assumption(2.75 * 2 ** 30), /,low=2G \(QEMU -machine q35\) or low=BYTES/);
  t.regex(await assumption(4 * 2 ** 30), /,low=3G \(QEMU -machine pc, VMware\) or low=2G/);
  t.regex(await assumption(4 * 2 ** 30, 2 ** 31), /2147483648 bytes below the hole/);
});
