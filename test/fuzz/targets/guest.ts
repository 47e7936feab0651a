/** A guest's memory: the input is a list of words (where in which object, what) that the guest has rewritten. */
import { Guest } from '../../../runtime/guest/guest.ts';
import { knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from '../../runtime/guest/synthetic.ts';

/** Bytes of the input for one word: the object, the word in it (2 bytes), and its value. */
const STEP = 11;
const MAX_STEPS = 64;
/** Calls to the hypervisor: far above what the guest's size explains. */
const MAX_CALLS = 20_000;

interface FuzzScene {
  readonly synthetic: SyntheticGuest;
  readonly guest: Guest;
  readonly objects: readonly bigint[];
  calls: number;
}

const scenes = new Map<number, Promise<FuzzScene>>();

async function makeScene(index: number): Promise<FuzzScene> {
  const kernel = SYNTHETIC_KERNELS[index]!;
  const synthetic = await SyntheticGuest.make({ kernel });
  const { domain } = synthetic;
  const read = domain.frames.read.bind(domain.frames);
  const guest = await Guest.attach(domain, [knownKernel(kernel)]);
  const objects = [synthetic.initTask, ...synthetic.tasks.values(), ...synthetic.queues];
  const scene: FuzzScene = { synthetic, guest, objects, calls: 0 };
  domain.frames.read = (batch) => {
    scene.calls += 1;
    if (scene.calls > MAX_CALLS) throw new Error(`more than ${MAX_CALLS} reads: it does not end`);
    return read(batch);
  };
  return scene;
}

function sceneOf(index: number): Promise<FuzzScene> {
  const scene = scenes.get(index) ?? makeScene(index);
  scenes.set(index, scene);
  return scene;
}

export async function seeds(): Promise<Buffer[]> {
  const all: Buffer[] = [];
  for (const index of SYNTHETIC_KERNELS.keys()) {
    const { objects } = await sceneOf(index);
    const step = (object: number, word: number, value: bigint) => {
      const bytes = Buffer.alloc(STEP);
      bytes[0] = object;
      bytes.writeUInt16LE(word, 1);
      bytes.writeBigUInt64LE(value, 3);
      return bytes;
    };
    all.push(Buffer.concat([Buffer.from([index]), step(1, 4, objects[0]!), step(2, 8, objects[2]! + 8n)]));
  }
  return all;
}

export async function read(bytes: Buffer): Promise<void> {
  if (bytes.length === 0) return;
  const scene = await sceneOf(bytes[0]! % SYNTHETIC_KERNELS.length);
  const { synthetic, guest, objects } = scene;
  const undo: (() => void)[] = [];
  scene.calls = 0;
  try {
    for (let at = 1; at + STEP <= bytes.length && undo.length < MAX_STEPS; at += STEP) {
      const object = objects[bytes[at]! % objects.length]!;
      const physical = synthetic.physical(object) + 8 * (bytes.readUInt16LE(at + 1) % 1024);
      const before = synthetic.image.load(physical, 8);
      undo.push(() => synthetic.image.store(physical, before));
      synthetic.image.store(physical, bytes.subarray(at + 3, at + 3 + 8));
    }
    const { runQueues } = guest.snapshot({ threads: true });
    if (runQueues.some(({ tasks }) => tasks.length > 1000)) throw new Error('a queue without an end');
  } finally {
    for (const step of undo.reverse()) step();
  }
}
