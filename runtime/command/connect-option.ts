import { Option } from 'commander';
import { absoluteConnect } from '../hypervisor/connect-value.ts';

/**
 * `--connect <place>`, repeatable.
 * @param places accepted values, as shown in the help
 */
export function connectOption(places: string): Option {
  return new Option('--connect <place>', places).argParser((value: string, before: string[] = []) => [
    ...before,
    absoluteConnect(value),
  ]);
}

/** Places whose domains can be looked at. */
export const READABLE =
  'where domains are (repeatable; a comma in a path twice): xen:, qemu:unix:/path/qmp.sock, pid:NUMBER, dump:/path/file';
/** Places whose domains can be changed, which excludes dumps. */
export const CHANGEABLE =
  'where domains are (repeatable; a comma in a path twice): xen:, qemu:unix:/path/qmp.sock, pid:NUMBER';
