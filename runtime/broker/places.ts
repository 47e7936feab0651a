import { DomschedError } from '../error.ts';
import type { Machines } from './machines.ts';
import { MonitorMachines } from './monitor-machines.ts';
import { brokerPlace } from './place.ts';
import { ProcessMachines } from './process-machines.ts';

/**
 * The machines of each place that the daemon was given, and of no others. Those with a monitor are left to it.
 * @throws DomschedError `usage`
 */
export function machinesOf(specs: readonly string[]): readonly Machines[] {
  const monitors: MonitorMachines[] = [];
  const sockets = () => monitors.flatMap((machines) => machines.ids());
  return specs.map((spec) => {
    const place = brokerPlace(spec);
    if (place?.by === 'process') return new ProcessMachines(place.pid, sockets);
    if (place === undefined) {
      throw new DomschedError('usage', `a broker cannot reach machines by ${spec}`, { connect: spec });
    }
    const machines = new MonitorMachines(spec, place.socket);
    monitors.push(machines);
    return machines;
  });
}
