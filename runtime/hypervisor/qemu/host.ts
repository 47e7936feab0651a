import { QemuDomain } from './domain.ts';
import type { QemuSockets } from './qmp-domain.ts';
import { QmpHost } from './qmp-host.ts';

/** The machines of QEMU behind one or more QMP sockets, with all that these can do. */
export class QemuHost extends QmpHost<QemuDomain> {
  constructor(connection: string, machines: () => readonly QemuSockets[]) {
    super(connection, machines, (sockets, itself) => QemuDomain.attach(sockets, itself));
  }
}
