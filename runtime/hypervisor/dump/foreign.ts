import { shellWord } from '../../shell-word.ts';
import { TAKE_A_DUMP } from './elf.ts';
import type { DumpBytes } from './file.ts';

/** A format that we do not read: its first bytes, its name, and how to turn it into a dump that we read. */
interface Foreign {
  readonly magic: readonly (string | readonly number[])[];
  readonly at?: number;
  readonly format: string;
  advice(path: string): string;
}

/** Bytes at the beginning of a file that identify it. A swap partition has its mark at the end of a page. */
export const HEAD = 4096;

const LIME_V2 = 'take it again with LiME and without its compress=1';

const FOREIGN: readonly Foreign[] = [
  packed('gzip', [[0x1f, 0x8b]], 'gzip -dc'),
  packed('zstd', [[0x28, 0xb5, 0x2f, 0xfd]], 'zstd -dc'),
  packed('xz', ['\xfd7zXZ\0'], 'xz -dc'),
  packed('bzip2', ['BZh'], 'bzip2 -dc'),
  packed('lz4', [[0x04, 0x22, 0x4d, 0x18]], 'lz4 -dc'),
  packed('lzop', ['\x89LZO\0\r\n\x1a\n'], 'lzop -dc'),
  {
    magic: ['PK\x03\x04'],
    format: 'a zip archive (AFF4 is one too)',
    advice: () => 'unpack it, and name the memory dump in it if that is ELF, LiME or raw',
  },
  {
    magic: ['EMiL\x02\0\0\0'],
    format: 'a compressed LiME dump (version 2)',
    advice: () => LIME_V2,
  },
  {
    magic: ['AVML'],
    format: 'a compressed dump of AVML',
    advice: () => 'take it again without --compress, or let avml-convert make a LiME dump of it',
  },
  {
    magic: ['QEVM'],
    format: 'a saved state of QEMU (a migration stream, as virsh dump writes without --memory-only)',
    advice: (path) =>
      `start QEMU as that machine was started and with -S -incoming ${shellWord(`exec:cat ${shellWord(path)}`)}, and in its ` +
      `monitor give dump-guest-memory ${monitorWord(`${path}.dump`)}`,
  },
  {
    magic: ['LibvirtQemudSave', 'LibvirtQemudPart'],
    format: 'a saved domain of libvirt (virsh save)',
    advice: (path) =>
      `give virsh restore --paused ${shellWord(path)}, and then virsh dump --memory-only NAME ${shellWord(`${path}.dump`)}`,
  },
  {
    magic: ['Xen saved domain', 'LinuxGuestRecord', [...Array(8).fill(0xff), ...Buffer.from('XENF')]],
    format: 'a saved domain of Xen (xl save)',
    // Not restored paused: a PV guest writes down where its pages are when it goes on; no dump works before.
    advice: (path) =>
      `give xl restore ${shellWord(path)}, and once it runs xl dump-core NAME ${shellWord(`${path}.dump`)}`,
  },
  {
    magic: [
      [0xd0, 0xbe, 0xd2, 0xbe],
      [0xd1, 0xba, 0xd1, 0xbe],
      [0xd2, 0xbe, 0xd2, 0xbe],
      [0xd3, 0xbe, 0xd3, 0xbe],
    ],
    format: 'a saved state of VMware (.vmss, .vmsn)',
    advice: () =>
      'its memory is in the .vmem file of the same name: name that, with ,low=3G where the machine has more than 3 GiB',
  },
  {
    magic: ['\x7fVirtualBox SavedState'],
    format: 'a saved state of VirtualBox',
    advice: () => 'take a core of the running machine with its debugger (dumpvmcore)',
  },
  {
    magic: ['QFI\xfb', 'KDMV', 'vhdxfile', 'conectix'],
    format: 'an image of a disk',
    advice: () =>
      `if a snapshot with memory is in it, start the machine from that with -loadvm; ${TAKE_A_DUMP}`,
  },
  {
    magic: ['PAGEDU64', 'PAGEDUMP'],
    format: 'a crash dump of Windows',
    advice: () => 'of a Linux guest, take it again without -w',
  },
  {
    magic: ['HIBR', 'hibr', 'RSTR', 'WAKE'],
    format: 'a hibernation file of Windows',
    advice: () => TAKE_A_DUMP,
  },
  {
    magic: ['S1SUSPEND\0', 'SWAPSPACE2', 'SWAP-SPACE'],
    at: HEAD - 10,
    format: 'a swap partition or a hibernation image',
    advice: () => TAKE_A_DUMP,
  },
  {
    magic: ['DISKDUMP'],
    format: 'a diskdump, of a kernel before kdump',
    advice: () => 'domsched reads the ELF core, kdump, LiME and raw formats',
  },
];

/** @throws DomschedError `dump-unsupported` for a known format that we do not read */
export function refuseForeign(file: DumpBytes, head: Buffer): void {
  for (const { magic, at = 0, format, advice } of FOREIGN) {
    const begins = (bytes: Buffer) => head.subarray(at, at + bytes.length).equals(bytes);
    const found = magic.some((bytes) =>
      begins(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes)),
    );
    if (found) file.unsupported(format, advice(file.path));
  }
}

function packed(name: string, magic: Foreign['magic'], command: string): Foreign {
  return {
    magic,
    format: `packed with ${name}`,
    advice: (path) => `unpack it first: ${command} ${shellWord(path)} > ${shellWord(`${path}.dump`)}`,
  };
}

/** Quotes a word for QEMU's monitor. */
function monitorWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `"${word.replaceAll(/["\\]/g, '\\$&')}"`;
}
