import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { XenMachine } from '../../live/xen-machine.ts';

const [PID, LOG, CONFIG] = ['/run/daemon.pid', '/run/daemon.log', '/run/daemon.toml'];
/** A program in an emulated dom0 takes long to start. */
const LIMIT_MS = 600_000;
/** Ticks in which `/proc` counts CPU time, a second: Linux tells programs 100 on every machine of this kind. */
const TICKS = 100;

/** The daemon where it is installed on a Xen: in dom0. */
export class Dom0Daemon implements AsyncDisposable {
  readonly #xen: XenMachine;
  readonly #keys: string;
  #runs = false;

  private constructor(xen: XenMachine, keys: string) {
    this.#xen = xen;
    this.#keys = keys;
  }

  /**
   * Starts it and waits for a line of its log.
   * @param keys of its configuration, TOML, before the policies
   * @param message that it says once it is where it is to be
   */
  static async start(xen: XenMachine, keys: string, policy: string, message: string): Promise<Dom0Daemon> {
    const daemon = new Dom0Daemon(xen, keys);
    await daemon.#write(policy);
    await xen.must(`rm -f ${LOG}; { domsched run -c ${CONFIG} >/run/daemon.out 2>&1 & echo $! >${PID}; }`);
    daemon.#runs = true;
    await daemon.#says(message, 0);
    return daemon;
  }

  /** Its turn, by that policy: it goes on from where it stood. @returns how long its log was before */
  async go(policy: string): Promise<number> {
    await this.#write(policy);
    const from = await this.#lines();
    await this.#xen.must(`kill -CONT $(cat ${PID}); kill -HUP $(cat ${PID})`);
    await this.#says('configuration read again', from);
    return from;
  }

  /** Lets go of everybody, and stands still. */
  async rest(): Promise<void> {
    await this.go('');
    const held = '/run/domsched/held';
    await this.#xen.must(
      `while ls ${held} 2>/dev/null | grep -q json; do sleep 0.1; done; sleep 0.3`,
      LIMIT_MS,
    );
    await this.#xen.must(`kill -STOP $(cat ${PID})`);
  }

  /** Waits until it has held somebody since a line of its log. */
  async held(from: number): Promise<void> {
    await this.#says('hold', from);
  }

  async #write(policy: string): Promise<void> {
    const log = `[log]\nlevel = "debug"\nfile = "${LOG}"`;
    const config = `guarantee = 0\nconnect = ["xen:"]\n${this.#keys}\n${log}\n${policy}\n`;
    await writeFile(path.join(this.#xen.share, 'daemon.toml'), config);
    await this.#xen.must(`cp /host/daemon.toml ${CONFIG}`);
  }

  async #lines(): Promise<number> {
    return Number(await this.#xen.must(`wc -l <${LOG}`));
  }

  /** @throws Error with the end of its log when it ends without having said it */
  async #says(message: string, from: number): Promise<void> {
    const said = `tail -n +${from + 1} ${LOG} 2>/dev/null | grep -q '"msg":"${message}"'`;
    const gone = `kill -0 $(cat ${PID}) || { tail -n 5 ${LOG}; cat /run/daemon.out; exit 1; }`;
    await this.#xen.must(`until ${said}; do ${gone}; sleep 0.3; done`, LIMIT_MS);
  }

  /** CPU time that it has had, in ms, by dom0's own count. */
  async cpuMs(): Promise<number> {
    const stat = await this.#xen.must(`cat /proc/$(cat ${PID})/stat`);
    const [user, system] = stat
      .replace(/^.*\) /, '')
      .split(' ')
      .slice(11, 13)
      .map(Number) as [number, number];
    return ((user + system) * 1000) / TICKS;
  }

  /** Ends it, so that it lets go of everybody. @throws Error when something went wrong in its time */
  async end(): Promise<void> {
    if (!this.#runs) return;
    this.#runs = false;
    await this.#xen.must(
      `p=$(cat ${PID}); kill $p; kill -CONT $p; while kill -0 $p 2>/dev/null; do sleep 0.2; done`,
    );
    const trouble = await this.#xen.must(`grep -E '"level":(50|60)' ${LOG} | head -n 3; cat /run/daemon.out`);
    if (trouble.trim() !== '') throw new Error(`the daemon: ${trouble}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
