import { CLIENT_ID_PREFIXES, subjectOf } from '@ares/proto'
import type { ClassName } from '../policy/policy'

/** Who a certificate's CN speaks for on MQTT. */
export type Identity =
  | { readonly className: 'device'; readonly deviceId: string }
  | { readonly className: 'listener' | 'server' }
  | { readonly className: 'none'; readonly reason: 'nobody' | 'service_without_mqtt' }

/** @param commonName as the broker gives it: several CNs come joined by commas and are nobody */
export function identityOf(commonName: string): Identity {
  const subject = subjectOf(commonName)
  if (!subject) return { className: 'none', reason: 'nobody' }
  if (subject.kind === 'device') return { className: 'device', deviceId: subject.deviceId }
  const className = CLASS_OF_SERVICE[subject.service]
  return className ? { className } : { className: 'none', reason: 'service_without_mqtt' }
}

/** Which certificate may come with which client id; the prefix alone gives nothing. */
export function isServiceClientId(className: 'listener' | 'server', clientId: string): boolean {
  const prefix = CLIENT_ID_PREFIXES[className]
  return clientId.startsWith(prefix) && /^[0-9a-f]{8}$/.test(clientId.slice(prefix.length))
}

/**
 * A person's client id begins with the e-mail. So it is never a device's or a service's (an id has no `@`), and nobody can
 * take over another one's session, whose subscriptions EMQX would not check again.
 */
export function isUserClientId(email: string, clientId: string): boolean {
  if (!email.includes('@') || !clientId.startsWith(email)) return false
  return /^(?:\/[A-Za-z0-9_-]{1,64})?$/.test(clientId.slice(email.length))
}

const CLASS_OF_SERVICE: Readonly<Record<string, Extract<ClassName, 'listener' | 'server'>>> = {
  listener: 'listener',
  api: 'server',
}
