/**
 * Names in certificates and on MQTT, as the whole system agrees on them (see docs/contract.md).
 * A name is canonical: lower case, one label, no trailing dot. Anything else is nobody.
 */

const DEVICE_SUFFIX = '.device.ares4.internal'
const SERVICE_SUFFIX = '.service.ares4.internal'

/** One DNS label in lower case: what an id must look like to fit in a certificate, a client id and a topic. */
export const ID_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** The services that have an identity of their own. */
export const SERVICE_NAMES = ['api', 'listener', 'authorizer'] as const
export type ServiceName = (typeof SERVICE_NAMES)[number]

/** Who a certificate speaks for. */
export type Subject =
  | { readonly kind: 'device'; readonly deviceId: string }
  | { readonly kind: 'service'; readonly service: ServiceName }

/** `<deviceId>.device.ares4.internal` */
export const deviceCommonName = (deviceId: string): string => `${deviceId}${DEVICE_SUFFIX}`

/** `<service>.service.ares4.internal` */
export const serviceCommonName = (service: string): string => `${service}${SERVICE_SUFFIX}`

/** Reads a certificate's CN; undefined for anything that is not exactly a device's or a known service's. */
export function subjectOf(commonName: string): Subject | undefined {
  if (commonName.endsWith(DEVICE_SUFFIX)) {
    const deviceId = commonName.slice(0, -DEVICE_SUFFIX.length)
    return ID_PATTERN.test(deviceId) ? { kind: 'device', deviceId } : undefined
  }
  if (commonName.endsWith(SERVICE_SUFFIX)) {
    const name = commonName.slice(0, -SERVICE_SUFFIX.length)
    const service = SERVICE_NAMES.find((known) => known === name)
    return service ? { kind: 'service', service } : undefined
  }
  return undefined
}

/** Prefixes of the client ids that belong to services; what follows is eight hexadecimal digits per instance. */
export const CLIENT_ID_PREFIXES = {
  listener: 'ares4-mqtt-listener-',
  server: 'ares-server-v2-',
} as const

/** MQTT client id of a listener instance. @param instance eight hexadecimal digits, stable for the instance's life */
export const listenerClientId = (instance: string): string => `${CLIENT_ID_PREFIXES.listener}${instance}`
