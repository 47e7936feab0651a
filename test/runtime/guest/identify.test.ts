import path from 'node:path';
import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { bannerIn } from '../../../runtime/guest/identify/banner.ts';
import { identify } from '../../../runtime/guest/identify/identify.ts';
import { buildIdOf } from '../../../runtime/guest/identify/notes.ts';
import { FRAME_SIZE, guestFrame } from '../../../runtime/hypervisor/frame.ts';
import type { FrameBatch } from '../../../runtime/hypervisor/frame-batch.ts';
import type { Domain } from '../../../runtime/hypervisor/types.ts';
import type { KnownKernel } from '../../../runtime/layout/registry.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { CFS_KERNEL, knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from './synthetic.ts';

const KERNEL = CFS_KERNEL;

async function refusal(domain: Domain, known: readonly KnownKernel[]): Promise<DomschedError> {
  try {
    await identify(domain, known);
  } catch (error) {
    if (error instanceof DomschedError) return error;
    throw error;
  }
  throw new Error('it was identified');
}

/** The domain without what a dump of raw memory lacks. */
function raw({ domain }: SyntheticGuest): Domain {
  return {
    identity: domain.identity,
    frames: domain.frames,
    generation: 0,
    tick: () => undefined,
    state: async () => 'image',
    onEvent: () => () => undefined,
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

test('two independent facts give the slide, two phys_base, and the build-id is the guest’s own', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const found = await identify(synthetic.domain, [knownKernel(KERNEL)]);
  t.true(found.derivations.filter(({ of }) => of === 'slide').length >= 2);
  t.true(found.derivations.filter(({ of }) => of === 'physBase').length >= 2);
  t.is(found.buildId, knownKernel(KERNEL).buildId);
});

test('of two kernels with one banner the build-id decides', async (t) => {
  const right = knownKernel(KERNEL);
  // Another build: everything equal but the id, and so surely the layout.
  const buildId = '00'.repeat(20);
  const { layout } = (await import(path.join(right.store, right.folder, 'index.ts'))) as {
    layout: AnyLayout;
  };
  const other = new LayoutView({ ...layout, $kernel: { ...layout.$kernel, buildId } } as AnyLayout);
  const impostor: KnownKernel = { ...right, buildId, load: async () => other };
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const found = await identify(synthetic.domain, [impostor, right]);
  t.is(found.layout.kernel.buildId, right.buildId);
  // Of no use for this one, which says nothing of itself: it is as unknown as any.
  for (const domain of [synthetic.domain as Domain, raw(synthetic)]) {
    const alone = await refusal(domain, [impostor]);
    t.is(alone.code, 'layout-unknown');
    t.regex(alone.message, /the known layout of that release is of another build; make it with/);
  }
});

test('an unknown kernel is named, with the one command that makes its layout', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    const others = SYNTHETIC_KERNELS.filter((name) => name !== kernel).map(knownKernel);
    const { release } = knownKernel(kernel);
    for (const domain of [synthetic.domain as Domain, raw(synthetic)]) {
      const error = await refusal(domain, others);
      t.is(error.code, 'layout-unknown');
      t.is(error.details.release, release);
      t.true(
        error.message.includes(`domsched extract /usr/lib/debug/boot/vmlinux-${release}`),
        error.message,
      );
    }
  }
});

test('CPUs that run programs with tables of their own: the image, which is one, is searched once', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const { domain, image, tables } = synthetic;
  // An unknown kernel, for which all tables are tried.
  const others = SYNTHETIC_KERNELS.filter((name) => name !== KERNEL).map(knownKernel);
  const bytesRead = async (roots: readonly number[]) => {
    let bytes = 0;
    const registers = (await domain.registers.read()).slice(0, 1);
    const counted: Domain = Object.assign(raw(synthetic), {
      registers: {
        read: async () => roots.flatMap((root) => registers.map((vcpu) => ({ ...vcpu, cr3: BigInt(root) }))),
      },
      frames: new Proxy(domain.frames, {
        get: (target, key) =>
          key === 'read'
            ? (batch: FrameBatch) => {
                bytes += batch.used;
                return target.read(batch);
              }
            : Reflect.get(target, key),
      }),
    });
    t.is((await refusal(counted, others)).code, 'layout-unknown');
    return bytes;
  };
  const copies = Array.from({ length: 8 }, () => {
    const page = Math.ceil(synthetic.physical(synthetic.alloc(2 * FRAME_SIZE)) / FRAME_SIZE) * FRAME_SIZE;
    image.store(page, image.load(tables.root, FRAME_SIZE));
    return page;
  });
  const one = await bytesRead([tables.root]);
  t.true(one > 2 ** 20);
  // What comes on top is tables and single words.
  t.true((await bytesRead([tables.root, ...copies])) < 1.5 * one);
});

test('a release that a shell would act on is one word of the command', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const known = knownKernel(KERNEL);
  const banner = known.banner!.replace(known.release!, '6.1;$(reboot)');
  synthetic.text(synthetic.symbol('linux_banner'), `${banner}\n`);
  const { message } = await refusal(synthetic.domain, [known]);
  t.true(message.includes("domsched extract '/usr/lib/debug/boot/vmlinux-6.1;$(reboot)'"), message);
});

test('a known release with another banner is another kernel', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const known = knownKernel(KERNEL);
  synthetic.text(synthetic.symbol('linux_banner'), `${known.banner!.replace('#1 SMP', '#2 SMP')}\n`);
  const error = await refusal(synthetic.domain, [known]);
  t.is(error.code, 'layout-unknown');
  t.regex(error.message, /of another build/);
});

test('derivations that contradict each other are a refusal', async (t) => {
  const known = [knownKernel(KERNEL)];
  const moved = await SyntheticGuest.make({ kernel: KERNEL });
  moved.word(moved.symbol('phys_base'), moved.physBase + 0x20_0000n);
  const byBase = await refusal(moved.domain, known);
  t.is(byBase.code, 'kernel-unidentified');
  t.regex(byBase.message, /phys_base/);

  const hooked = await SyntheticGuest.make({ kernel: KERNEL });
  const idt = hooked.domain.vcpus[0]!.idtBase;
  hooked.word(idt, 0x1234n | (0x8e00n << 32n));
  const byHandler = await refusal(hooked.domain, known);
  t.is(byHandler.code, 'kernel-unidentified');
  t.regex(byHandler.message, /IDT entry 0/);
});

test('memory without registers: found by its banner, and its own page tables', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    // A copy of the banner, as the kernel's log has one, lies in front.
    synthetic.image.store(0x10_0123, Buffer.from(`${knownKernel(kernel).banner}\n\0`, 'latin1'));
    const found = await identify(raw(synthetic), SYNTHETIC_KERNELS.map(knownKernel));
    t.is(found.release, knownKernel(kernel).release);
    t.is(found.slide, synthetic.slide);
    t.is(found.physBase, synthetic.physBase);
  }
});

test('memory read as if it were elsewhere: the kernel is a known one, and what was taken for granted is said', async (t) => {
  const shift = 0x200;
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    const domain = raw(synthetic);
    const moved: Domain = {
      ...domain,
      identity: { ...domain.identity, assumption: 'it is taken to have no hole' },
      frames: {
        space: 'guest',
        physicalBits: domain.frames.physicalBits,
        regions: () =>
          domain.frames.regions().map(({ first, count }) => ({ first: guestFrame(first + shift), count })),
        read(batch) {
          const asked = batch.frames.slice();
          for (let i = 0; i < batch.count; i++) batch.frames[i] = Math.max(0, asked[i]! - shift);
          const failed = domain.frames.read(batch);
          batch.frames.set(asked);
          return failed;
        },
      },
    };
    const error = await refusal(moved, SYNTHETIC_KERNELS.map(knownKernel));
    t.is(error.code, 'kernel-unidentified');
    t.true(error.message.includes(knownKernel(kernel).release));
    t.regex(error.message, /; it is taken to have no hole$/);
    t.notRegex(error.message, /another build/);
  }
});

test('a guest that is booting, or is no Linux, is said to be so', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  synthetic.domain.vcpus = synthetic.domain.vcpus.map((vcpu) => ({ ...vcpu, efer: 0n }));
  const booting = await refusal(synthetic.domain, [knownKernel(KERNEL)]);
  t.is(booting.code, 'kernel-unidentified');
  t.regex(booting.message, /64-bit mode/);
  const empty = await SyntheticGuest.make({ kernel: KERNEL });
  empty.text(empty.symbol('linux_banner'), 'Some other system');
  t.is((await refusal(empty.domain, [knownKernel(KERNEL)])).code, 'kernel-unidentified');
});

test('the tables of a program that ends are not relied on', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL });
  const found = await identify(synthetic.domain, [knownKernel(KERNEL)]);
  t.not(found.space.root, synthetic.tables.root);
  t.is(found.space.root, synthetic.physical(synthetic.symbol('init_top_pgt')));
});

test('notes: the build-id, whatever stands before it, and nothing beyond the end', (t) => {
  const note = (name: string, type: number, content: Buffer) => {
    const header = Buffer.alloc(12);
    header.writeUInt32LE(name.length + 1, 0);
    header.writeUInt32LE(content.length, 4);
    header.writeUInt32LE(type, 8);
    const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
    return Buffer.concat([header, pad(Buffer.from(`${name}\0`, 'latin1')), pad(content)]);
  };
  const id = Buffer.from('0123456789abcdef0123456789abcdef01234567', 'hex');
  const notes = Buffer.concat([
    note('Xen', 6, Buffer.from('linux\0')),
    note('Linux', 3, id),
    note('GNU', 3, id),
  ]);
  t.is(buildIdOf(notes), id.toString('hex'));
  for (let length = 0; length < notes.length; length++) t.is(buildIdOf(notes.subarray(0, length)), null);
  t.is(buildIdOf(Buffer.alloc(64, 0xff)), null);
});

test('banners: only a whole one', (t) => {
  const banner = 'Linux version 6.1.0 (a@b) (gcc) #1 SMP';
  t.is(bannerIn(Buffer.from(`${banner}\n\0rest`)), banner);
  for (const text of [
    `${banner}`,
    `${banner}\nrest`,
    'Linux version %s (%s)\n\0',
    `Linux version 6.1.0 (\x1b[2J)\n\0`,
  ]) {
    t.is(bannerIn(Buffer.from(text)), undefined, text);
  }
});
