import {
  type ApiClient,
  type Blueprint,
  type Device,
  type DeviceIdentity,
  enroll,
  inParallel,
  type Organization,
  type SupportedComponent,
} from '@ares/simulator'

/** A device that exists in Ares, with what it needs to come in. */
export interface BenchDevice {
  readonly id: string
  /** Names of its component instances. */
  readonly components: readonly string[]
  readonly identity: Pick<DeviceIdentity, 'keyPem' | 'certificatePem' | 'caPem'>
}

export interface BenchFleetPlan {
  readonly devices: number
  /** Component instances a device. */
  readonly components: number
  /** Whether receipts and errors are sent. */
  readonly wantsReceipts: boolean
}

/** The metrics that every component may report, all numbers. */
export const METRIC_NAMES = ['temperature', 'humidity', 'pressure', 'voltage', 'current'] as const

/** Makes the devices over REST, each with a certificate of its own. */
export async function makeBenchFleet(api: ApiClient, plan: BenchFleetPlan): Promise<BenchDevice[]> {
  const suffix = Date.now().toString(36)
  const organization = await api.post<Organization>('/organizations', { name: `Bench ${suffix}` })
  const path = `/organizations/${organization.id}`
  const { wantsReceipts } = plan
  const blueprint = await api.post<Blueprint>(`${path}/blueprints`, { name: `Probe ${suffix}`, wantsReceipts })
  const metrics = METRIC_NAMES.map((name) => ({ name, kind: 'number' as const }))
  const probe = await api.post<SupportedComponent>(`/blueprints/${blueprint.id}/components`, { name: 'Probe', metrics })
  const components = Array.from({ length: plan.components }, (_, n) => `probe-${n + 1}`)
  return inParallel(
    Array.from({ length: plan.devices }, (_, n) => `bench-${n + 1}`),
    async (name) => {
      const { id } = await api.post<Device>(`${path}/devices`, { name, blueprintId: blueprint.id })
      for (const component of components) {
        await api.post(`/devices/${id}/components`, { name: component, supportedComponentId: probe.id })
      }
      const { keyPem, certificatePem, caPem } = await enroll(api, id)
      return { id, components, identity: { keyPem, certificatePem, caPem } }
    },
  )
}
