import { Option } from 'commander';

/**
 * `--connect <place>`, repeatable.
 * @param places what it takes, as its help says it
 */
export function connectOption(places: string): Option {
  return new Option('--connect <place>', places).argParser((value: string, before: string[] = []) => [
    ...before,
    value,
  ]);
}

/** Where domains are that can be looked at. */
export const READABLE = 'where domains are (repeatable): xen:, qemu:unix:/path/qmp.sock, dump:/path/file';
/** Where domains are that can be changed: a dump cannot. */
export const CHANGEABLE = 'where domains are (repeatable): xen:, qemu:unix:/path/qmp.sock';
