import type { Stack } from '@ares/embedded'
import { type ApiClient, inParallel } from '@ares/simulator'
import type { BenchDevice } from './bench-fleet'
import { DeviceConnection, type Endpoint } from './device-connection'
import { quantile } from './quantile'

export interface RevocationResult {
  readonly devices: number
  /** From the call to the closed socket. */
  readonly p50Ms: number
  readonly p90Ms: number
  readonly p99Ms: number
  readonly maxMs: number
  /** From the call to its answer. */
  readonly answerP50Ms: number
  /** Devices that were let in again after their socket was closed. */
  readonly cameBack: number
}

interface Connected {
  readonly device: BenchDevice
  readonly endpoint: Endpoint
  readonly serial: string
  /** When the socket was closed, by performance.now(). */
  readonly closed: Promise<number>
}

/** Connects every device, revokes their certificates one after the other, and lets each try to come back. */
export async function measureRevocation(stack: Stack, devices: readonly BenchDevice[]): Promise<RevocationResult> {
  const api = stack.client()
  const connected = await inParallel(devices, (device) => connect(api, stack.urls.mqtt, device))
  const cut: number[] = []
  const answered: number[] = []
  let cameBack = 0
  for (const { device, endpoint, serial, closed } of connected) {
    const began = performance.now()
    const answer = api
      .post<{ readonly state: string }>(`/devices/${device.id}/certificates/${serial}/revoke`, {})
      .then((revocation) => ({ revocation, at: performance.now() }))
    const closedAt = await within(15_000, closed, `the socket of ${device.id} was not closed`)
    cut.push(closedAt - began)
    if (await isAdmitted(endpoint)) cameBack += 1
    const { revocation, at } = await answer
    if (revocation.state === 'unfinished') throw new Error(`not in effect: ${JSON.stringify(revocation)}`)
    answered.push(at - began)
  }
  return {
    devices: cut.length,
    p50Ms: quantile(cut, 0.5),
    p90Ms: quantile(cut, 0.9),
    p99Ms: quantile(cut, 0.99),
    maxMs: quantile(cut, 1),
    answerP50Ms: quantile(answered, 0.5),
    cameBack,
  }
}

async function connect(api: ApiClient, url: string, device: BenchDevice): Promise<Connected> {
  const endpoint: Endpoint = { url, clientId: device.id, ...device.identity }
  const [certificate] = (await api.get<{ items: Array<{ serial: string }> }>(`/devices/${device.id}/certificates`))
    .items
  if (!certificate) throw new Error(`the device ${device.id} has no certificate`)
  let tell: (at: number) => void = () => {}
  const closed = new Promise<number>((resolve) => {
    tell = resolve
  })
  await DeviceConnection.open(endpoint, { onAcknowledged: () => {}, onClosed: () => tell(performance.now()) })
  return { device, endpoint, serial: certificate.serial, closed }
}

async function isAdmitted(endpoint: Endpoint): Promise<boolean> {
  try {
    const connection = await DeviceConnection.open(endpoint, { onAcknowledged: () => {} })
    connection.destroy()
    return true
  } catch {
    return false
  }
}

async function within<T>(limitMs: number, work: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${otherwise} within ${limitMs} ms`)), limitMs)
  })
  return Promise.race([work, limit]).finally(() => clearTimeout(timer))
}
