import type { TelemetryItem } from '@ares/simulator'
import type { Stack } from './stack'

const EVERY_MS = 5_000

/** Waits until a report of a simulated device has been stored and can be read over REST. @returns its device id */
export async function firstRow(stack: Stack, limitMs = 60_000): Promise<{ deviceId: string; item: TelemetryItem }> {
  const api = stack.client()
  const devices = stack.simulator?.devices ?? []
  const since = stack.startedAt.toISOString() // not one of an earlier run
  const end = Date.now() + limitMs
  while (Date.now() < end) {
    for (const { device } of devices) {
      const { items } = await api.get<{ items: TelemetryItem[] }>(`/devices/${device.id}/telemetry/latest`)
      if (items[0] && items[0].capturedAt >= since) return { deviceId: device.id, item: items[0] }
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const stats = JSON.stringify(stack.simulator?.stats())
  throw new Error(`no report has been stored within ${limitMs / 1000} s. The simulated devices say: ${stats}`)
}

/** Prints every few seconds what has been committed since, until it is stopped. */
export function reportArrivals(stack: Stack, print: (line: string) => void): { stop(): void } {
  const { simulator } = stack
  if (!simulator || simulator.devices.length === 0) return { stop: () => {} }
  const api = stack.client()
  let before = 0
  let turn = 0
  const report = async () => {
    const stats = simulator.stats()
    const { device } = simulator.devices[turn++ % simulator.devices.length] as (typeof simulator.devices)[number]
    const { items } = await api.get<{ items: TelemetryItem[] }>(`/devices/${device.id}/telemetry/latest`)
    const time = new Date().toTimeString().slice(0, 8)
    const newest = items[0] ? `${device.name}: ${JSON.stringify(items[0].metrics)}` : ''
    const more = stats.committed - before
    before = stats.committed
    const waiting = stats.waiting > 0 ? `, ${stats.waiting} waiting for their receipt` : ''
    const refused = stats.refused > 0 ? `, ${stats.refused} refused` : ''
    print(`${time}  ${stats.online}/${stats.devices} online, +${more} committed${waiting}${refused}   ${newest}`)
  }
  const timer = setInterval(() => {
    report().catch((error: Error) =>
      print(`${new Date().toTimeString().slice(0, 8)}  no answer from api: ${error.message}`),
    )
  }, EVERY_MS)
  return { stop: () => clearInterval(timer) }
}
