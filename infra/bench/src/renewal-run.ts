import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '@ares/chassis/testing'
import type { Stack } from '@ares/embedded'
import { enroll, type FleetDevice, inParallel, provisionFleet, SimulatedDevice } from '@ares/simulator'
import { Client } from 'pg'
import { quantile } from './quantile'

export interface RenewalResult {
  readonly devices: number
  /** Devices that connected with their new certificate. */
  readonly renewed: number
  /** Reports that were made, and how many a second. */
  readonly reports: number
  readonly perSecond: number
  /** Reports that are in no row at the end. */
  readonly lost: number
  /** From the request to the connection with the new certificate. */
  readonly p50Ms: number
  readonly p99Ms: number
}

const FLEET = { organization: 'Renewal', blueprint: 'Climate node', prefix: 'renewing' }
const TICK_MS = 10

/**
 * All devices report at a steady rate; meanwhile each renews its certificate over MQTT and moves to it. Then every report
 * must be a row.
 */
export async function measureRenewal(
  stack: Stack,
  plan: { readonly devices: number; readonly rate: number; readonly seconds: number },
): Promise<RenewalResult> {
  const api = stack.client()
  const fleet = await provisionFleet(api, { ...FLEET, devices: plan.devices })
  const identities = await inParallel(fleet, ({ id }) => enroll(api, id))
  const database = new Client({ connectionString: stack.urls.database })
  await database.connect()
  const devices = fleet.map((member, index) => {
    const identity = identities[index]
    if (!identity) throw new Error('there is a certificate for each device')
    return new SimulatedDevice(member, identity, { mqttUrl: stack.urls.mqtt, intervalMs: 0, renewAfter: 1 })
  })
  try {
    for (const device of devices) device.start()
    await makeOld(database, fleet)
    await until(() => devices.every((device) => device.stats().online), 'every device is online', 30_000)
    const { made, seconds, tookMs } = await reportAndRenew(devices, plan)
    await until(
      () => devices.every((device) => device.stats().waiting === 0),
      'every report has its receipt',
      60_000,
    ).catch(() => undefined)
    const rows = await rowsOf(database, fleet)
    return {
      devices: devices.length,
      renewed: devices.filter((device) => device.stats().renewed > 0).length,
      reports: made,
      perSecond: Math.round(made / seconds),
      lost: made - rows,
      p50Ms: quantile(tookMs, 0.5),
      p99Ms: quantile(tookMs, 0.99),
    }
  } finally {
    await Promise.all(devices.map((device) => device.stop()))
    await database.end()
  }
}

/** A certificate may be renewed after half of its life: these have had it. */
async function makeOld(database: Client, fleet: readonly FleetDevice[]): Promise<void> {
  await database.query(
    `UPDATE certificates SET created_at = now() - interval '40 days' WHERE device_id = ANY ($1::uuid[])`,
    [fleet.map(({ id }) => id)],
  )
}

/** Renewals are spread over the middle of the run. */
async function reportAndRenew(
  devices: readonly SimulatedDevice[],
  { rate, seconds }: { rate: number; seconds: number },
) {
  const tookMs: number[] = []
  const renewals = devices.map(async (device, index) => {
    await sleep((seconds * 1_000 * (0.2 + (0.5 * index) / devices.length)) | 0)
    const began = performance.now()
    await device.renew()
    await until(() => device.stats().renewed > 0, 'it has renewed', 30_000)
    tookMs.push(performance.now() - began)
  })
  const began = performance.now()
  // Instants of their own, so that no two reports of a device are one row.
  const base = Date.now() - 3_600_000
  let made = 0
  for (let elapsed = 0; elapsed < seconds * 1_000; elapsed = performance.now() - began) {
    for (const due = Math.floor((elapsed * rate) / 1_000); made < due; made++) {
      devices[made % devices.length]?.report(new Date(base + made))
    }
    await sleep(TICK_MS)
  }
  const took = (performance.now() - began) / 1_000
  await Promise.allSettled(renewals)
  return { made, seconds: took, tookMs }
}

async function rowsOf(database: Client, fleet: readonly FleetDevice[]): Promise<number> {
  const { rows } = await database.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM telemetry t JOIN component_instances c ON c.id = t.component_id
      WHERE c.device_id = ANY ($1::uuid[])`,
    [fleet.map(({ id }) => id)],
  )
  return rows[0]?.count ?? 0
}
