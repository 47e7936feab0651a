import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { bootO1, type O1Guest } from '../live/o1.ts';

/** A guest of 2.6.16's layout with one CPU, as the paper's domain U, and a QMP socket for domsched alone. */
export interface PaperGuest extends AsyncDisposable {
  readonly guest: O1Guest;
  readonly qmp: string;
  /** The `--connect` value. */
  readonly connection: string;
}

/** @param programs as kernels/o1/README.md has them */
export async function bootPaperGuest(name: string, programs: string): Promise<PaperGuest> {
  const folder = await mkdtemp(path.join(tmpdir(), 'domsched-experiment-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  const qmp = path.join(folder, 'qmp.sock');
  try {
    const guest = await bootO1({
      name,
      cpus: 1,
      commandLine: `run=${programs} report=1000`,
      extraArguments: ['-qmp', `unix:${qmp},server=on,wait=off`],
    });
    const stop = async () => {
      await guest.stop();
      await remove();
    };
    return { guest, qmp, connection: `qemu:unix:${qmp}`, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await remove();
    throw error;
  }
}
