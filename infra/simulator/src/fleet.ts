import { newKeyAndCsr } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import {
  type ApiClient,
  ApiProblem,
  type Blueprint,
  type ComponentInstance,
  type Device,
  type IssuedCertificate,
  type Metric,
  type Organization,
  type SupportedComponent,
} from './api-client'

export interface FleetPlan {
  readonly organization: string
  readonly blueprint: string
  /** How many devices. */
  readonly devices: number
  /** Devices are called `<prefix>-01` and so on. */
  readonly prefix: string
}

/** A device that exists in Ares, with one DHT22 attached. */
export interface FleetDevice {
  readonly id: string
  readonly name: string
  /** Name of the component instance, as reports name it. */
  readonly component: string
}

export interface DeviceIdentity {
  readonly keyPem: string
  /** Leaf and intermediate, as a TLS client presents them. */
  readonly certificatePem: string
  /** What the broker's certificate is checked against. */
  readonly caPem: string
  readonly serial: string
  readonly receivedAt: Date
  readonly expiresAt: Date
}

export const DEMO_FLEET: FleetPlan = { organization: 'Demo', blueprint: 'Climate node', devices: 5, prefix: 'climate' }

/** What the sensor measures, and within which bounds the data sheet has it. */
const DHT22: readonly Metric[] = [
  { name: 'temperature', kind: 'number', unit: '°C', minimum: -40, maximum: 80 },
  { name: 'humidity', kind: 'number', unit: '%', minimum: 0, maximum: 100 },
  { name: 'heater_on', kind: 'boolean' },
]
const COMPONENT = 'DHT22'
const INSTANCE = 'dht22-1'
/** Calls at once: provisioning a thousand devices must not be a denial of service. */
const PARALLEL = 8

/** Makes what is missing of a fleet over REST, and finds the rest by name: a second call with the same plan adds nothing. */
export async function provisionFleet(api: ApiClient, plan: FleetPlan): Promise<FleetDevice[]> {
  const organization = await findOrMake<Organization>(api, '/organizations', plan.organization, {})
  const blueprints = `/organizations/${organization.id}/blueprints`
  const blueprint = await findOrMake<Blueprint>(api, blueprints, plan.blueprint, { wantsReceipts: true })
  const component = await componentOf(api, blueprint.id)

  const path = `/organizations/${organization.id}/devices`
  const known = new Map<string, Device>()
  for await (const device of api.all<Device>(path)) known.set(device.name, device)
  const names = Array.from(
    { length: plan.devices },
    (_, index) => `${plan.prefix}-${String(index + 1).padStart(2, '0')}`,
  )
  return inParallel(names, async (name) => {
    const device = known.get(name) ?? (await api.post<Device>(path, { name, blueprintId: blueprint.id }))
    await attach(api, device.id, component.id)
    return { id: device.id, name, component: INSTANCE }
  })
}

/** A fresh key, which stays in this process, and a certificate for it. */
export async function enroll(api: ApiClient, deviceId: string): Promise<DeviceIdentity> {
  const { keyPem, csrPem } = await newKeyAndCsr(deviceCommonName(deviceId))
  return identityOf(keyPem, await certify(api, deviceId, csrPem))
}

/** What a device connects with, from its key and what Ares made of its CSR. */
export function identityOf(keyPem: string, issued: IssuedCertificate): DeviceIdentity {
  const [intermediate = ''] = issued.chain
  return {
    keyPem,
    certificatePem: `${issued.certificate.trim()}\n${intermediate.trim()}\n`,
    caPem: `${issued.chain.map((pem) => pem.trim()).join('\n')}\n`,
    serial: issued.serial,
    receivedAt: new Date(),
    expiresAt: new Date(issued.expiresAt),
  }
}

/** A device has only so many certificates. A simulated one forgets its key whenever it stops, so its old ones may go. */
async function certify(api: ApiClient, deviceId: string, csr: string): Promise<IssuedCertificate> {
  const path = `/devices/${deviceId}/certificates`
  try {
    return await api.post<IssuedCertificate>(path, { csr })
  } catch (error) {
    if (!(error instanceof ApiProblem) || error.code !== 'too_many_certificates') throw error
    for await (const { serial, state } of api.all<{ serial: string; state: string }>(path)) {
      if (state === 'active') await api.post(`${path}/${serial}/revoke`, { reason: 'the key is gone' })
    }
    return await api.post<IssuedCertificate>(path, { csr })
  }
}

/** Runs `work` for each item, a few at a time; the answers are in the order of the items. */
export async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) results[index] = await work(items[index] as T)
  }
  await Promise.all(Array.from({ length: Math.min(PARALLEL, items.length) }, worker))
  return results
}

async function componentOf(api: ApiClient, blueprintId: string): Promise<SupportedComponent> {
  const { components = [] } = await api.get<Blueprint>(`/blueprints/${blueprintId}`)
  const known = components.find((component) => component.name === COMPONENT)
  return known ?? api.post(`/blueprints/${blueprintId}/components`, { name: COMPONENT, metrics: DHT22 })
}

async function attach(api: ApiClient, deviceId: string, supportedComponentId: string): Promise<void> {
  const path = `/devices/${deviceId}/components`
  for await (const instance of api.all<ComponentInstance>(path)) if (instance.name === INSTANCE) return
  await api.post(path, { name: INSTANCE, supportedComponentId })
}

async function findOrMake<T extends { readonly name: string }>(
  api: ApiClient,
  path: string,
  name: string,
  more: object,
): Promise<T> {
  const find = async (): Promise<T | undefined> => {
    for await (const item of api.all<T>(path)) if (item.name === name) return item
    return undefined
  }
  const known = await find()
  if (known) return known
  try {
    return await api.post<T>(path, { name, ...more })
  } catch (error) {
    // Somebody else was quicker.
    const theirs = error instanceof ApiProblem && error.status === 409 ? await find() : undefined
    if (theirs) return theirs
    throw error
  }
}
