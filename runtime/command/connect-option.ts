import { Option } from 'commander';
import { absoluteConnect } from '../hypervisor/connect-value.ts';

/**
 * `--connect <place>`, repeatable.
 * @param places what it takes, as its help says it
 */
export function connectOption(places: string): Option {
  return new Option('--connect <place>', places).argParser((value: string, before: string[] = []) => [
    ...before,
    absoluteConnect(value),
  ]);
}

/** Where domains are that can be looked at. */
export const READABLE =
  'where domains are (repeatable; a comma in a path twice): xen:, qemu:unix:/path/qmp.sock, dump:/path/file';
/** Where domains are that can be changed: a dump cannot. */
export const CHANGEABLE =
  'where domains are (repeatable; a comma in a path twice): xen:, qemu:unix:/path/qmp.sock';
