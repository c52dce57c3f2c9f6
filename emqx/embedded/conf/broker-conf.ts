import { z } from 'zod'
import { bindAddress, durationMs, ratePerSecond, sizeInBytes } from './quantity'

/**
 * The part of emqx.conf that the embedded broker honours. A key that is not named here is an error, so that emqx.conf
 * cannot say something that only one of the two brokers does: what EMQX alone knows is marked `emqxOnly`.
 */

/** Known to EMQX, without meaning here. */
const emqxOnly = z.unknown().optional()

const quantity = (read: (value: unknown) => number | undefined, example: string) =>
  z.unknown().transform((value, context) => {
    const amount = read(value)
    if (amount !== undefined) return amount
    context.addIssue({ code: 'custom', message: `is not like ${example}` })
    return z.NEVER
  })

const duration = quantity(durationMs, '"2s" or "1h"')
const size = quantity(sizeInBytes, '"256KB" or 1024')
const rate = quantity(ratePerSecond, '"50/s", "256KB/s" or "infinity"')
const bind = z.unknown().transform((value, context) => {
  const address = bindAddress(value)
  if (address) return address
  context.addIssue({ code: 'custom', message: 'is not like "0.0.0.0:8883" or 8883' })
  return z.NEVER
})
const count = z.union([z.number().int().nonnegative(), z.literal('infinity').transform(() => Number.POSITIVE_INFINITY)])
const file = z.string().min(1)

const tlsVersions = z.array(z.enum(['tlsv1.3', 'tlsv1.2'])).min(1)

const sslOptions = z.strictObject({
  cacertfile: file.optional(),
  certfile: file,
  keyfile: file,
  verify: z.enum(['verify_peer', 'verify_none']).default('verify_none'),
  fail_if_no_peer_cert: z.boolean().default(false),
  versions: tlsVersions.default(['tlsv1.3', 'tlsv1.2']),
  depth: emqxOnly,
  reuse_sessions: emqxOnly,
  honor_cipher_order: emqxOnly,
})

const listenerShape = {
  enable: z.literal(true).default(true),
  bind,
  zone: z.string().default('default'),
  max_connections: count.default(Number.POSITIVE_INFINITY),
  max_conn_rate: rate.default(Number.POSITIVE_INFINITY),
  messages_rate: rate.default(Number.POSITIVE_INFINITY),
  bytes_rate: rate.default(Number.POSITIVE_INFINITY),
  limiter: z
    .strictObject({ messages: z.strictObject({ rate: rate.default(Number.POSITIVE_INFINITY) }).prefault({}) })
    .prefault({}),
  enable_authn: z.boolean().default(true),
  acceptors: emqxOnly,
  ssl_options: sslOptions,
}

const switchedOff = z.looseObject({ enable: z.literal(false) })
const sslListener = z.strictObject(listenerShape)
const wssListener = z.strictObject({
  ...listenerShape,
  websocket: z
    .strictObject({
      mqtt_path: z.string().startsWith('/').default('/mqtt'),
      max_frame_size: size.default(Number.POSITIVE_INFINITY),
      check_origin_enable: emqxOnly,
    })
    .prefault({}),
})
const listenersOf = <T extends z.ZodType>(listener: T) =>
  z.record(z.string(), z.union([switchedOff, listener])).default({})

const mqttShape = {
  max_packet_size: size.default(1024 ** 2),
  max_clientid_len: count.default(65535),
  max_topic_levels: z.number().int().min(1).default(128),
  idle_timeout: duration.default(15_000),
  session_expiry_interval: duration.default(7_200_000),
  max_inflight: z.number().int().min(1).max(65535).default(32),
  /** 0: no limit */
  max_mqueue_len: count.default(1000),
  max_awaiting_rel: count.default(100),
  peer_cert_as_username: z.enum(['cn', 'disabled']).default('disabled'),
  // aedes closes at 1.5 times the keepalive, grants every QoS and every wildcard: other values cannot be honoured.
  keepalive_multiplier: z.literal(1.5).default(1.5),
  max_qos_allowed: z.literal(2).default(2),
  wildcard_subscription: z.literal(true).default(true),
  shared_subscription: z.literal(true).default(true),
  shared_subscription_strategy: z.literal('round_robin').default('round_robin'),
  retry_interval: emqxOnly,
}
const mqtt = z.strictObject(mqttShape)
const zone = z.strictObject({
  mqtt: mqtt.partial().default({}),
  flapping_detect: emqxOnly,
  force_shutdown: emqxOnly,
})

const clientSsl = z.strictObject({
  enable: z.boolean().default(false),
  verify: z.enum(['verify_peer', 'verify_none']).default('verify_none'),
  cacertfile: file.optional(),
  certfile: file.optional(),
  keyfile: file.optional(),
  server_name_indication: z.string().optional(),
  versions: tlsVersions.default(['tlsv1.3', 'tlsv1.2']),
})

const webhookShape = {
  enable: z.boolean().default(true),
  method: z.literal('post'),
  url: z.url({ protocol: /^https?$/ }),
  headers: z.record(z.string(), z.string()).default({ 'content-type': 'application/json' }),
  body: z.record(z.string(), z.union([z.string(), z.number().transform(String)])).default({}),
  connect_timeout: duration.default(15_000),
  request_timeout: duration.default(5_000),
  pool_size: z.number().int().min(1).default(8),
  /** The embedded broker never pipelines: it behaves as with 1. */
  enable_pipelining: emqxOnly,
  ssl: clientSsl.prefault({}),
}
const httpsNeedsSsl = <T extends { url: string; ssl: { enable: boolean } }>(hook: T) =>
  !hook.url.startsWith('https:') || hook.ssl.enable

const authenticator = z
  .strictObject({ mechanism: z.literal('password_based'), backend: z.literal('http'), ...webhookShape })
  .refine(httpsNeedsSsl, { message: 'an https url needs ssl.enable = true' })
const authorizationSource = z
  .strictObject({ type: z.literal('http'), ...webhookShape })
  .refine(httpsNeedsSsl, { message: 'an https url needs ssl.enable = true' })

const brokerConf = z.object({
  listeners: z.strictObject({
    ssl: listenersOf(sslListener),
    wss: listenersOf(wssListener),
    // The embedded broker has no plain port: these may only be switched off.
    tcp: z.record(z.string(), switchedOff).default({}),
    ws: z.record(z.string(), switchedOff).default({}),
  }),
  mqtt: mqtt.prefault({}),
  zones: z.record(z.string(), zone).default({}),
  authentication: z.array(authenticator).default([]),
  authorization: z.strictObject({
    no_match: z.enum(['allow', 'deny']).default('allow'),
    deny_action: z.enum(['ignore', 'disconnect']).default('ignore'),
    cache: z
      .strictObject({
        enable: z.boolean().default(true),
        max_size: z.number().int().min(1).default(32),
        ttl: duration.default(60_000),
        excludes: z.array(z.string()).default([]),
      })
      .prefault({}),
    sources: z.array(authorizationSource).max(1, 'EMQX does not start with two sources of one type').default([]),
  }),
  retainer: z
    .strictObject({ enable: z.boolean().default(true), backend: emqxOnly, max_payload_size: emqxOnly })
    .prefault({}),
  api_key: z.strictObject({ bootstrap_file: file.optional() }).prefault({}),
  dashboard: z
    .strictObject({
      listeners: z
        .strictObject({ http: z.strictObject({ bind: bind.prefault('127.0.0.1:18083') }).prefault({}) })
        .prefault({}),
    })
    .prefault({}),
})

/** Sections of emqx.conf that concern EMQX alone. */
export const EMQX_ONLY_SECTIONS = [
  'node',
  'log',
  'flapping_detect',
  'force_shutdown',
  'prometheus',
  'sys_topics',
  'telemetry',
] as const
export const SECTIONS: readonly string[] = [...Object.keys(brokerConf.shape), ...EMQX_ONLY_SECTIONS]

export type BrokerConf = z.output<typeof brokerConf>
export type SslListenerConf = z.output<typeof sslListener>
export type WssListenerConf = z.output<typeof wssListener>
export type SslOptions = z.output<typeof sslOptions>
export type WebhookConf = Omit<z.output<typeof authorizationSource>, 'type'>
export type AuthorizationConf = BrokerConf['authorization']
export type ZoneConf = z.output<typeof mqtt> & { readonly name: string }

/**
 * Checks a parsed emqx.conf.
 * @throws Error listing every problem with its path
 */
export function checkedConf(parsed: Record<string, unknown>): BrokerConf {
  const unknown = Object.keys(parsed).filter((section) => !SECTIONS.includes(section))
  const result = brokerConf.safeParse(parsed)
  const problems = result.success ? [] : result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  for (const section of unknown) problems.push(`${section}: no section that is known here`)
  if (!result.success || problems.length > 0) {
    throw new Error(`The EMQX configuration cannot be honoured:\n  ${problems.join('\n  ')}`)
  }
  return result.data
}

/** The MQTT settings of a zone: its own over the global ones. */
export function zoneOf(conf: BrokerConf, parsed: Record<string, unknown>, name: string): ZoneConf {
  // Defaults must not win over the global section, so the zone's keys are taken as far as they were really given.
  const zones = (parsed.zones ?? {}) as Record<string, { mqtt?: Record<string, unknown> }>
  const given = Object.keys(zones[name]?.mqtt ?? {})
  const own = conf.zones[name]?.mqtt ?? {}
  const over = Object.fromEntries(Object.entries(own).filter(([key]) => given.includes(key)))
  return { ...conf.mqtt, ...over, name }
}
