import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { type Bind, ConfigError, commonVariables, readEnvironment, variable } from '@ares/chassis'
import { listenerClientId } from '@ares/proto'
import { z } from 'zod'
import type { BatchLimits } from './batcher'
import type { MqttSettings } from './mqtt/session'
import { PEER_NEWS_MS } from './peers'

/** Everything the listener can be told, in its own words. */
export interface ListenerConfig {
  readonly logLevel: string
  readonly opsBind: Bind
  readonly grpcBind: Bind
  readonly vault: { readonly address: string; readonly caFile?: string; readonly credentials: string }
  readonly caFile: string
  /** host:port of api's gRPC server. */
  readonly apiAddress: string
  readonly mqtt: MqttSettings
  readonly batch: BatchLimits
  /** How long one commit may take before it counts as failed. */
  readonly commitDeadlineMs: number
  /** How long commits may fail before the listener leaves its messages to another one that commits. */
  readonly standAsideAfterMs: number
  /** How long stop() waits for commits. */
  readonly drainMs: number
  /** A message that waits longer than this for its commit makes the listener unready. */
  readonly heldAlarmMs: number
}

/** @throws ConfigError with every problem */
export function readConfig(env: NodeJS.ProcessEnv): ListenerConfig {
  const given = readEnvironment(schema, env)
  assertPrivate(given.ARES_MQTT_URL)
  return {
    logLevel: given.ARES_LOG_LEVEL,
    opsBind: given.ARES_OPS_BIND,
    grpcBind: given.ARES_GRPC_BIND,
    vault: {
      address: given.ARES_VAULT_ADDR,
      caFile: given.ARES_VAULT_CA_FILE,
      credentials: given.ARES_VAULT_CREDENTIALS,
    },
    caFile: given.ARES_CA_FILE,
    apiAddress: given.ARES_API_ADDRESS,
    mqtt: {
      url: given.ARES_MQTT_URL,
      version: given.ARES_MQTT_VERSION,
      clientId: listenerClientId(given.ARES_LISTENER_INSTANCE ?? instanceOf(hostname())),
      sessionExpiryMs: given.ARES_MQTT_SESSION_EXPIRY,
      receiveMaximum: given.ARES_MQTT_RECEIVE_MAXIMUM,
      maxHeldBytes: given.ARES_HELD_BYTES,
      leaveGroup: LEAVE_GROUP[given.ARES_LEAVE_GROUP_ON_STOP],
    },
    batch: {
      maxItems: given.ARES_BATCH_MESSAGES,
      maxBytes: given.ARES_BATCH_BYTES,
      maxAgeMs: given.ARES_BATCH_AGE,
      maxInFlight: given.ARES_BATCHES_IN_FLIGHT,
      retryFirstMs: 100,
      retryMaxMs: 2_000,
    },
    commitDeadlineMs: given.ARES_COMMIT_DEADLINE,
    standAsideAfterMs: given.ARES_STAND_ASIDE_AFTER,
    drainMs: given.ARES_DRAIN,
    heldAlarmMs: given.ARES_HELD_ALARM,
  }
}

const LEAVE_GROUP = { true: true, false: false, unless_keeper: 'unless_keeper' } as const

const schema = z.object({
  ...commonVariables,
  ARES_GRPC_BIND: variable.bind().prefault('0.0.0.0:9091'),
  ARES_API_ADDRESS: variable.address(),
  /** The broker's listener for services. mqtt:// is taken only for this machine: nothing protects it on a wire. */
  ARES_MQTT_URL: variable.url(['mqtts:', 'mqtt:']),
  /** auto: MQTT 5, and 3.1.1 when the broker refuses it. */
  ARES_MQTT_VERSION: z.enum(['auto', '5', '3.1.1']).default('auto'),
  /** Eight hexadecimal digits, another for each listener. Default: from the host name. */
  ARES_LISTENER_INSTANCE: z
    .string()
    .regex(/^[0-9a-f]{8}$/, 'must be 8 hexadecimal digits in lower case')
    .optional(),
  /** How long the broker keeps the session when the listener is gone; then its share goes to the others. */
  ARES_MQTT_SESSION_EXPIRY: variable.durationMs().prefault('10s'),
  /** Messages in hand at most; the broker's own limit (EMQX: max_inflight of the zone) may be lower. */
  ARES_MQTT_RECEIVE_MAXIMUM: variable.integer({ min: 1, max: 65_535 }).prefault('8000'),
  /** Payload in hand at most, in bytes; beyond it the broker is not read. */
  ARES_HELD_BYTES: variable.integer({ min: 1_048_576 }).prefault('67108864'),
  /** false: an only listener keeps its place in the group while it is restarted, and the broker queues for it.
   *  unless_keeper: so does the one of several that api calls the keeper; the others leave. */
  ARES_LEAVE_GROUP_ON_STOP: z.enum(['true', 'false', 'unless_keeper']).default('unless_keeper'),
  /** A call and its transaction cost api as much as some hundred reports: at full load larger batches pay, at any other
   *  the age of a batch ends it before. */
  ARES_BATCH_MESSAGES: variable.integer({ min: 1, max: 5_000 }).prefault('1000'),
  /** Payload of one batch in bytes. With what was read in it, a call stays below the contract's 8 MiB. */
  ARES_BATCH_BYTES: variable.integer({ min: 1_024, max: 4_194_304 }).prefault('1048576'),
  ARES_BATCH_AGE: variable.durationMs().prefault('20ms'),
  ARES_BATCHES_IN_FLIGHT: variable.integer({ min: 1, max: 16 }).prefault('4'),
  ARES_COMMIT_DEADLINE: variable.durationMs().prefault('10s'),
  /** Longer than a commit of another listener counts as news (5 s), or two could leave because of each other. */
  ARES_STAND_ASIDE_AFTER: variable
    .durationMs()
    .refine((ms) => ms > PEER_NEWS_MS, 'must be more than 5s')
    .prefault('10s'),
  ARES_DRAIN: variable.durationMs().prefault('10s'),
  ARES_HELD_ALARM: variable.durationMs().prefault('30s'),
})

/** The same host gives the same instance, so that its session is found again after a restart. */
export const instanceOf = (host: string): string => createHash('sha256').update(host).digest('hex').slice(0, 8)

function assertPrivate(url: string): void {
  const { protocol, hostname: host } = new URL(url)
  if (protocol === 'mqtts:' || ['localhost', '127.0.0.1', '[::1]'].includes(host)) return
  throw new ConfigError([`ARES_MQTT_URL: mqtt:// is not encrypted and is taken for localhost only; use mqtts://`])
}
