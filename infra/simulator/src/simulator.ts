import type { ApiClient } from './api-client'
import { type DeviceOptions, type DeviceStats, SimulatedDevice } from './device'
import { enroll, type FleetPlan, inParallel, provisionFleet } from './fleet'

export interface SimulatorOptions extends DeviceOptions {
  readonly plan: FleetPlan
}

/** A fleet of simulated devices: made in Ares where it is missing, each with a certificate of its own, all connected. */
export class Simulator {
  private constructor(readonly devices: readonly SimulatedDevice[]) {}

  /** @throws ApiProblem when Ares does not let us set up the fleet */
  static async start(api: ApiClient, options: SimulatorOptions): Promise<Simulator> {
    const fleet = await provisionFleet(api, options.plan)
    const devices = await inParallel(fleet, async (member) => {
      const device = new SimulatedDevice(member, await enroll(api, member.id), options)
      device.start()
      return device
    })
    return new Simulator(devices)
  }

  /** Sums over all devices. */
  stats(): Omit<DeviceStats, 'online'> & { readonly devices: number; readonly online: number } {
    const all = this.devices.map((device) => device.stats())
    const sum = (field: Exclude<keyof DeviceStats, 'online'>) => all.reduce((total, stats) => total + stats[field], 0)
    return {
      devices: all.length,
      online: all.filter((stats) => stats.online).length,
      made: sum('made'),
      acknowledged: sum('acknowledged'),
      committed: sum('committed'),
      refused: sum('refused'),
      waiting: sum('waiting'),
      dropped: sum('dropped'),
      renewed: sum('renewed'),
    }
  }

  /** Each device has at least one row. */
  everyDeviceHasAReceipt(): boolean {
    return this.devices.every((device) => device.stats().committed > 0)
  }

  async stop(): Promise<void> {
    await Promise.all(this.devices.map((device) => device.stop()))
  }
}
