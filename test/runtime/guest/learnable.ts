/** A guest in memory with the read-only data of a real kernel, which says of itself what that kernel does. */
import type { KernelMemory } from '../../../extractor/contract.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { findKallsyms, type KallsymsPlaces } from '../../../extractor/kallsyms/kallsyms.ts';
import { realKernels } from '../../real-kernels.ts';
import { CFS_KERNEL, knownKernel, SyntheticGuest } from './synthetic.ts';

/** `setup_header.pref_address` (Documentation/arch/x86/boot.rst). */
const PREF_ADDRESS = 0x258n;

export interface GuestLies {
  rodata?: (bytes: Buffer) => void;
  btf?: (bytes: Buffer) => void;
}

/** What guests are made of that have a kernel's own tables. */
export class LearnableKernel {
  readonly places: KallsymsPlaces;
  readonly #rodata: MemoryPiece;
  readonly #btf: MemoryPiece;
  readonly #bootParams: bigint;

  private constructor(rodata: MemoryPiece, btf: MemoryPiece, bootParams: bigint) {
    this.#rodata = rodata;
    this.#btf = btf;
    this.#bootParams = bootParams;
    this.places = findKallsyms(rodata.bytes, rodata.address, (at, length) => {
      const offset = Number(at - rodata.address);
      return rodata.bytes.subarray(offset, offset + length);
    })!.places;
  }

  static async read(): Promise<LearnableKernel> {
    const real = realKernels().find(({ release }) => release === knownKernel(CFS_KERNEL).release)!;
    await using file = await openKernelFile(real.vmlinuz, { debugRoots: [] });
    const piece = (name: string): MemoryPiece => {
      const section = file.section(name)!;
      return { address: section.address, bytes: Buffer.from(section.read()) };
    };
    const bootParams = file.lookup(['boot_params']).get('boot_params')!.address;
    return new LearnableKernel(piece('.rodata'), piece('.BTF'), bootParams);
  }

  /** A copy of the tables, as they are read from memory. */
  memory(): KernelMemory {
    const parts = [this.#rodata, this.#btf].map(({ address, bytes }) => ({
      address,
      bytes: Uint8Array.from(bytes),
    }));
    return { name: 'memory of web', parts };
  }

  /** A guest with the kernel's own tables, moved as its boot loader would have. */
  async guest(options: { name: string; slide?: bigint }, lies: GuestLies = {}): Promise<SyntheticGuest> {
    const guest = await SyntheticGuest.make({ kernel: CFS_KERNEL, ...options });
    const [rodata, btf, baseAt] = [this.#rodata, this.#btf, this.places.baseAt!];
    const pieces = [
      { ...rodata, lie: lies.rodata },
      { ...btf, lie: lies.btf },
    ];
    for (const { address, bytes, lie } of pieces) {
      const own = Buffer.from(bytes);
      keep(own, guest.image.load(guest.physical(address + guest.slide), own.length));
      if (address === rodata.address) own.writeBigUInt64LE(own.readBigUInt64LE(baseAt) + guest.slide, baseAt);
      lie?.(own);
      guest.image.store(guest.physical(address + guest.slide), own);
    }
    guest.word(this.#bootParams + guest.slide + PREF_ADDRESS, 0x100_0000n);
    return guest;
  }
}

/** What a guest has written at its start, such as where its CPUs' areas are, stays. */
function keep(own: Buffer, written: Uint8Array): void {
  const words = Buffer.from(written);
  for (let at = 0; at + 8 <= own.length; at += 8) {
    const word = words.readBigUInt64LE(at);
    if (word !== 0n) own.writeBigUInt64LE(word, at);
  }
}

interface MemoryPiece {
  readonly address: bigint;
  readonly bytes: Buffer;
}
