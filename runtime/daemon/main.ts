import path from 'node:path';
import process from 'node:process';
import type { ProcessRow, PsAnswer } from '../control/control.ts';
import { ControlServer } from '../control/server.ts';
import { DomschedError } from '../error.ts';
import { controlPath } from '../runtime-directory.ts';
import { version as ownVersion } from '../version.ts';
import { readConfig } from './config.ts';
import { Daemon, type Settings } from './daemon.ts';
import { DaemonLog } from './daemon-log.ts';
import { problemsOf } from './fleet-policy.ts';
import { Operator } from './operator.ts';
import { makePolicies } from './policies.ts';
import { makeSettings, withStoredPolicy } from './settings.ts';
import type { Split } from './split.ts';

/**
 * Runs `domsched run` until SIGTERM or SIGINT, then puts everything back; the exit code is 1 if something is left.
 * SIGHUP reads the configuration again and reopens the log file and the trace.
 * @throws DomschedError `config-invalid`; `refused` if a daemon already runs
 */
export async function runDaemon(file: string): Promise<void> {
  let early = false;
  const onEarlyReload = () => {
    early = true;
  };
  process.on('SIGHUP', onEarlyReload);
  let config = await readConfig(file);
  const version = ownVersion();
  const daemonLog = new DaemonLog(config.log);
  const log = daemonLog.logger;
  const stop = new AbortController();
  const onStop = (signal: NodeJS.Signals) => {
    log.info({ signal }, 'stopping');
    stop.abort();
  };
  process.once('SIGTERM', onStop).once('SIGINT', onStop);
  await using split = config.split ? await startSplit(config.connect) : undefined;
  // A trace is the reader's own: root does not open what the reader may replace.
  const opened = split ? { ...config, trace: undefined } : config;
  let settings = await makeSettings(opened, file, log, undefined, split?.hosts);
  const serves = (connect: readonly string[]) => new Operator(daemon, reload, version, connect);
  const server = await ControlServer.listen(controlPath(), serves, log).catch(async (error: unknown) => {
    await closeAll(settings);
    throw error;
  });
  try {
    // All is open that root alone may open.
    split?.giveUpRoot();
    if (split)
      settings = { ...settings, observers: [...settings.observers, ...(await split.trace(config, log))] };
  } catch (error) {
    await server.close();
    await closeAll(settings);
    throw error;
  }
  const daemon = new Daemon(settings, log, (tick) => server.tick(tick), split?.journals);
  split?.client.onLost((error) => {
    log.fatal({ err: error }, 'the broker has ended, and so does the daemon');
    process.exitCode = 1;
    stop.abort();
  });
  // One after the other: each starts from what the one before made.
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = (work: () => Promise<void>) => {
    const mine = turn.then(work);
    turn = mine.catch(() => {});
    return mine;
  };
  const serveFleet = () =>
    daemon.settings.fleet?.serve(
      (stored) =>
        inTurn(async () => daemon.reload(await withStoredPolicy(daemon.settings, config, file, log, stored))),
      {
        checkPolicy: problemsOf,
        processes: () => busiestFirst(serves([]).ps()),
        accounts: () => serves([]).accounts(),
      },
    );
  const reloadNow = async () => {
    const next = split ? await split.readAgain(file, config) : await readConfig(file);
    const old = daemon.settings;
    const made = await makeSettings(next, file, log, { config, settings: old }, split?.hosts);
    daemon.reload(made);
    if (old.hosts !== made.hosts) log.info('other connections: domains that are gone from them are let go');
    log.level = next.log.level;
    config = next;
    serveFleet();
    log.info('configuration read again');
  };
  const reload = () => inTurn(reloadNow);
  const onReload = () => {
    // First, because log rotation needs it even if the new configuration is invalid.
    daemonLog.reopen();
    reload().catch((error: unknown) => log.error({ err: error }, 'the configuration stays as it was'));
  };
  process.on('SIGHUP', onReload).off('SIGHUP', onEarlyReload);
  if (early) onReload();
  try {
    const broker = split && { broker: split.client.pid };
    log.info(
      {
        version,
        pid: process.pid,
        ...broker,
        intervalMs: settings.intervalMs,
        policies: config.policy.length,
      },
      'running',
    );
    serveFleet();
    await daemon.run(stop.signal);
    const left = await daemon.restore();
    if (left.length === 0) log.info('everything was put back, and no guest holds anybody');
    else {
      log.error(
        { left },
        'not everything was put back: when the domains run again, `domsched release --all` does it',
      );
      process.exitCode = 1;
    }
  } finally {
    process.off('SIGHUP', onReload);
    await Promise.allSettled(daemon.settings.observers.map((observer) => observer.close()));
    await server.close();
    await daemon.close();
  }
}

/** Loaded only then: nobody else needs it. */
async function startSplit(connect: readonly string[]): Promise<Split> {
  const { Split } = await import('./split.ts');
  return Split.start(connect);
}

async function closeAll({ observers, hosts, fleet }: Settings): Promise<void> {
  await Promise.allSettled([...observers, hosts, ...(fleet ? [fleet] : [])].map((each) => each.close()));
}

/** Other hosts are told of those first that used most CPU time. */
async function busiestFirst(asked: Promise<PsAnswer>): Promise<PsAnswer> {
  const answer = await asked;
  const used = ({ utimeNs, stimeNs }: ProcessRow) => utimeNs + stimeNs;
  return { ...answer, rows: answer.rows.toSorted((a, b) => used(b) - used(a)) };
}

/** Runs `domsched check-config`. @throws DomschedError `config-invalid` with every problem */
export async function checkConfig(file: string, json: boolean): Promise<void> {
  try {
    const config = await readConfig(file);
    // Load the policies' modules too: a module that cannot be loaded cannot run.
    await makePolicies(config, path.dirname(path.resolve(file)));
    if (config.fleet !== undefined) (await import('../fleet/fleet.ts')).checkFleet(config.fleet);
    const text = json ? JSON.stringify({ file, problems: [] }, null, 2) : `${file}: no problem found`;
    process.stdout.write(`${text}\n`);
  } catch (error) {
    if (!json || !(error instanceof DomschedError) || error.code !== 'config-invalid') throw error;
    const problems = error.details.problems ?? [error.message];
    process.stdout.write(`${JSON.stringify({ file, problems }, null, 2)}\n`);
    process.exitCode = error.exitCode;
  }
}
