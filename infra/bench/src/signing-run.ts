import { newKeyAndCsr } from '@ares/chassis'
import type { Stack } from '@ares/embedded'
import { deviceCommonName } from '@ares/proto'
import { type Device, inParallel } from '@ares/simulator'
import type { BenchDevice } from './bench-fleet'
import { quantile } from './quantile'

export interface SigningResult {
  /** Calls at once. */
  readonly parallel: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** As many as one device may have. */
const CERTIFICATES_A_DEVICE = 8

/** Has CSRs signed for devices that are made for it: keys and CSRs are there before the clock starts. */
export async function measureSigning(
  stack: Stack,
  like: readonly BenchDevice[],
  plan: { readonly csrs: number; readonly parallel: number },
): Promise<SigningResult> {
  const api = stack.client()
  const orders = await makeOrders(stack, like, plan)
  await api.accessToken()
  const times: number[] = []
  let next = 0
  const work = async () => {
    for (let at = next++; at < orders.length; at = next++) {
      const order = orders[at]
      if (!order) return
      const began = performance.now()
      await api.post(`/devices/${order.deviceId}/certificates`, { csr: order.csr })
      times.push(performance.now() - began)
    }
  }
  const began = performance.now()
  await Promise.all(Array.from({ length: plan.parallel }, work))
  const seconds = (performance.now() - began) / 1_000
  return {
    parallel: plan.parallel,
    perSecond: Math.round(orders.length / seconds),
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
  }
}

async function makeOrders(stack: Stack, [first]: readonly BenchDevice[], plan: { csrs: number; parallel: number }) {
  if (!first) throw new Error('there is no device to take the organization from')
  const api = stack.client()
  const { organizationId, blueprintId } = await api.get<Device & { organizationId: string; blueprintId: string }>(
    `/devices/${first.id}`,
  )
  const path = `/organizations/${organizationId}/devices`
  const names = Array.from(
    { length: Math.ceil(plan.csrs / CERTIFICATES_A_DEVICE) },
    (_, n) => `sign-${plan.parallel}-${n + 1}`,
  )
  const made = await inParallel(names, (name) => api.post<Device>(path, { name, blueprintId }))
  // Neighbours in the list are different devices: two certificates for one wait for each other.
  return inParallel(
    Array.from({ length: plan.csrs }, (_, n) => made[n % made.length]?.id ?? ''),
    async (deviceId) => ({ deviceId, csr: (await newKeyAndCsr(deviceCommonName(deviceId))).csrPem }),
  )
}
