/** The MQTT topics, see docs/contract.md. What is said to or by a device is under its own branch. */

export const TOPIC_ROOT = 'ares4'

const PREFIX = `${TOPIC_ROOT}/`

/** Topics of one device, and one that is no device's. */
export const topics = {
  telemetry: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/telemetry`,
  status: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/status`,
  response: (deviceId: string, commandId: string): string => `${TOPIC_ROOT}/${deviceId}/responses/${commandId}`,
  certificateRequest: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/certificate/request`,
  command: (deviceId: string, commandId: string): string => `${TOPIC_ROOT}/${deviceId}/commands/${commandId}`,
  receipts: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/receipts`,
  errors: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/errors`,
  certificateResponse: (deviceId: string): string => `${TOPIC_ROOT}/${deviceId}/certificate/response`,
  /** What one listener says to the others. A root of its own: no filter over the devices reaches it. */
  listenerNews: (clientId: string): string => `ares4-services/listeners/${clientId}`,
} as const

/** What a topic that a device publishes on stands for. */
export type DeviceTopic =
  | { readonly kind: 'telemetry'; readonly deviceId: string; readonly format?: string }
  | { readonly kind: 'status'; readonly deviceId: string }
  | { readonly kind: 'response'; readonly deviceId: string; readonly commandId: string }
  | { readonly kind: 'certificateRequest'; readonly deviceId: string }

/** Reads a topic that a device published on; undefined when it is none of ours. */
export function parseDeviceTopic(topic: string): DeviceTopic | undefined {
  if (!topic.startsWith(PREFIX)) return undefined
  const end = topic.indexOf('/', PREFIX.length)
  if (end <= PREFIX.length) return undefined
  const deviceId = topic.slice(PREFIX.length, end)
  const path = topic.slice(end + 1)
  // Nearly every message comes on this one, so it is not taken apart.
  if (path === 'telemetry') return { kind: 'telemetry', deviceId }
  const [branch, leaf, ...rest] = path.split('/')
  if (rest.length > 0) return undefined
  if (branch === 'telemetry') return { kind: 'telemetry', deviceId, ...(leaf ? { format: leaf } : {}) }
  if (branch === 'status' && leaf === undefined) return { kind: 'status', deviceId }
  if (branch === 'responses' && leaf) return { kind: 'response', deviceId, commandId: leaf }
  if (branch === 'certificate' && leaf === 'request') return { kind: 'certificateRequest', deviceId }
  return undefined
}

/** Which listener says something on this topic; undefined when it is another one. */
export function parseListenerNews(topic: string): string | undefined {
  const start = topics.listenerNews('')
  return topic.startsWith(start) ? topic.slice(start.length) : undefined
}
