/** A host of a fleet on this machine: a daemon of its own over an O(1) guest of its own, in which `pi1` runs. */
import { mkdtemp } from 'node:fs/promises';
import path from 'node:path';
import type { FleetStatus } from '../../runtime/fleet/status.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootO1, kernelFile, type O1Guest } from './o1.ts';

export interface LiveHost extends AsyncDisposable {
  readonly guest: O1Guest;
  readonly daemon: DaemonProcess;
  /** @param keys before the tables of its configuration; those of a test if left out */
  configure(keys?: string): Promise<void>;
  held(): Promise<number>;
  status(): Promise<FleetStatus>;
}

/**
 * @param url of the server, as this host reaches it
 * @param within a command that runs the daemon: in another network, or by another clock
 * @param program of another build
 */
export async function bootFleetHost(
  name: string,
  directory: string,
  url: string,
  within: readonly string[] = [],
  program?: string,
): Promise<LiveHost> {
  const own = await mkdtemp(path.join(directory, `${name}-`));
  const socket = path.join(own, 'guest.sock');
  const guest = await bootO1({
    name: `guest-${name}`,
    cpus: 1,
    commandLine: 'run=pi1',
    extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
  });
  const daemon = new DaemonProcess(own, [`qemu:unix:${socket}`], within, program);
  await daemon.extract(kernelFile('base'));
  const configure = (keys?: string) =>
    daemon.configure(`[fleet]\nservers = ["${url}"]\nname = "${name}"\nlease = 2`, keys);
  await configure();
  daemon.start();
  await using control = await daemon.control();
  await control.status();
  return {
    guest,
    daemon,
    configure,
    async held() {
      await using asked = await daemon.control();
      return (await asked.status()).domains.reduce((sum, { held }) => sum + held, 0);
    },
    async status() {
      await using asked = await daemon.control();
      return (await asked.fleet())!;
    },
    async [Symbol.asyncDispose]() {
      await daemon[Symbol.asyncDispose]();
      await guest.stop();
    },
  };
}
