import type { Peer } from '../peer'
import { Acl, BadAclRule } from './acl'
import { BodyTemplate } from './body-template'
import { mediaTypeOf, type Webhook, type WebhookAnswer } from './webhook'

export type AuthnVerdict =
  | { readonly kind: 'allow'; readonly superuser: boolean; readonly acl: Acl | undefined; readonly expireAt?: number }
  /** `returnCode` is the MQTT 3.1.1 one: 5 not authorized, 4 bad user name or password */
  | { readonly kind: 'refuse'; readonly returnCode: 4 | 5; readonly reason: string }
  /** the next authenticator is asked; after the last one the client is refused with 5 */
  | { readonly kind: 'ignore'; readonly reason: string }

const PLACEHOLDERS = ['clientid', 'username', 'password', 'peerhost', 'cert_common_name', 'cert_pem', 'zone'] as const

/** EMQX's HTTP authenticator: one request for each CONNECT, the answer read as the measured table says. */
export class HttpAuthenticator {
  private readonly template: BodyTemplate<(typeof PLACEHOLDERS)[number]>

  constructor(
    private readonly webhook: Webhook,
    body: Readonly<Record<string, string>>,
  ) {
    this.template = new BodyTemplate(body, PLACEHOLDERS)
  }

  async authenticate(peer: Peer, password: Buffer | undefined): Promise<AuthnVerdict> {
    const secret = utf8(password)
    // EMQX cannot put such a password into the body: no request, 135.
    if (secret === undefined) return { kind: 'ignore', reason: 'the password is not UTF-8' }
    const answer = await this.webhook.ask(
      this.template.render({
        clientid: peer.clientId,
        username: peer.username ?? '',
        password: secret,
        peerhost: peer.host,
        cert_common_name: peer.commonName,
        cert_pem: peer.certificate,
        zone: peer.zone.name,
      }),
    )
    return authnVerdict(answer, peer)
  }
}

/** What EMQX makes of an answer (measured with the HTTP authenticator alone). */
export function authnVerdict(answer: WebhookAnswer, peer: Peer, now = Date.now()): AuthnVerdict {
  if (answer.kind === 'failure') return { kind: 'ignore', reason: answer.cause }
  if (answer.status === 204) return { kind: 'allow', superuser: false, acl: undefined }
  // Status does not say "deny": whatever is neither 200 nor 204 is as if there were no answer.
  if (answer.status !== 200) return { kind: 'ignore', reason: `status ${answer.status}` }
  const fields = fieldsOf(answer)
  if (typeof fields === 'string') return { kind: 'ignore', reason: fields }
  if (fields.result === 'deny') return { kind: 'refuse', returnCode: 5, reason: 'denied' }
  if (fields.result !== 'allow') return { kind: 'ignore', reason: 'the result is not allow or deny' }
  return allowed(fields, peer, now)
}

function allowed(fields: Readonly<Record<string, unknown>>, peer: Peer, now: number): AuthnVerdict {
  const { expire_at: expireAt, acl } = fields
  if ('expire_at' in fields && !isFutureSecond(expireAt, now)) {
    return { kind: 'refuse', returnCode: 4, reason: 'bad_response_body: expire_at' }
  }
  if (acl !== undefined && !Array.isArray(acl)) {
    return { kind: 'refuse', returnCode: 5, reason: 'the acl is not a list' }
  }
  if (!areAttributes(fields.client_attrs)) {
    return { kind: 'refuse', returnCode: 5, reason: 'client_attrs is not an object of strings' }
  }
  try {
    return {
      kind: 'allow',
      superuser: isTrue(fields.is_superuser),
      acl: acl === undefined ? undefined : Acl.read(acl, peer),
      ...(typeof expireAt === 'number' ? { expireAt } : {}),
    }
  } catch (error) {
    if (!(error instanceof BadAclRule)) throw error
    return { kind: 'refuse', returnCode: 4, reason: `bad_acl_rule: ${error.message}` }
  }
}

/** A text is the reason why there are none. */
function fieldsOf(answer: { contentType: string | undefined; body: string }): Record<string, unknown> | string {
  const type = mediaTypeOf(answer.contentType)
  if (type === 'form') return Object.fromEntries(new URLSearchParams(answer.body))
  if (type !== 'json') return 'unsupported_content_type'
  try {
    const value: unknown = JSON.parse(answer.body)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'badmap'
    return value as Record<string, unknown>
  } catch {
    return 'truncated_json'
  }
}

/** Seconds in the past, and milliseconds taken for seconds, are refused alike. */
function isFutureSecond(value: unknown, now: number): boolean {
  const latest = now / 1000 + 100 * 365 * 86_400
  return typeof value === 'number' && Number.isInteger(value) && value > now / 1000 && value < latest
}

function isTrue(value: unknown): boolean {
  return value === true || value === 'true' || value === 1 || value === '1'
}

function areAttributes(value: unknown): boolean {
  if (value === undefined) return true
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.values(value).every((attribute) => typeof attribute === 'string')
}

const decoder = new TextDecoder('utf-8', { fatal: true })

function utf8(password: Buffer | undefined): string | undefined {
  if (password === undefined) return ''
  try {
    return decoder.decode(password)
  } catch {
    return undefined
  }
}
