import path from 'node:path';
import { parseConnect } from '../hypervisor/connect-value.ts';

/** Where a broker may look for machines: by their processes, one or all, or by monitors, one or those in default places. */
export type BrokerPlace =
  | { readonly by: 'process'; readonly pid: number | undefined }
  | { readonly by: 'monitor'; readonly socket: string | undefined };

/** @param spec a `--connect` value @returns undefined if a broker cannot reach machines by it */
export function brokerPlace(spec: string): BrokerPlace | undefined {
  const { scheme, address = '', options } = parseConnect(spec) ?? {};
  if (options?.size !== 0) return undefined;
  const [, socket] = /^unix:(.+)$/s.exec(address) ?? [];
  if (scheme === 'qemu' && (address === '' || socket !== undefined)) {
    return { by: 'monitor', socket: socket === undefined ? undefined : path.resolve(socket) };
  }
  if (scheme === 'pid' && /^([1-9]\d{0,9})?$/.test(address)) {
    return { by: 'process', pid: address === '' ? undefined : Number(address) };
  }
  return undefined;
}
