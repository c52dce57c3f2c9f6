import { Broker } from './broker'
import { FileWatch } from './certificate-files'
import type { SslListenerConf, WssListenerConf } from './conf/broker-conf'
import { loadConf } from './conf/conf-file'
import { MqttListener } from './listener/mqtt-listener'
import type { BrokerLogger } from './logger'
import { ApiKeys } from './management/api-keys'
import { ManagementApi } from './management/management-api'

export interface EmbeddedBrokerOptions {
  /** The emqx.conf. */
  readonly confFile: string
  /** `EMQX_…` variables over it, as EMQX takes them; others are ignored. Default: none. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Default: silent. */
  readonly logger?: BrokerLogger
  /** How often replaced certificate files are looked for; default 2,000 ms (EMQX: up to 120 s). */
  readonly certificatePollMs?: number
}

export interface EmbeddedBroker {
  /** The real ports, where 0 was asked for. A listener that is switched off has none. */
  readonly ports: {
    readonly devices: number
    readonly services: number
    readonly users: number
    readonly management: number
  }
  /** Closes listeners, connections and timers. Sessions are gone, as they are with EMQX. */
  stop(): Promise<void>
}

/**
 * Starts the embedded broker from the file that a real EMQX would be started with.
 * MQTT 3.1.1 only: a CONNECT of MQTT 5 is refused with code 1.
 * @throws Error naming what in the configuration cannot be honoured, the file that cannot be read, or the taken port
 */
export async function startEmbeddedBroker(options: EmbeddedBrokerOptions): Promise<EmbeddedBroker> {
  const logger = options.logger ?? silent
  const certificatePollMs = options.certificatePollMs ?? 2_000
  const loaded = await loadConf(options.confFile, options.env ?? {})
  const broker = new Broker(loaded, logger)

  const listeners = [
    ...listenersOf('ssl', loaded.conf.listeners.ssl),
    ...listenersOf('wss', loaded.conf.listeners.wss),
  ].map(
    ([id, conf]) =>
      new MqttListener({
        id,
        conf,
        zone: loaded.zone(conf.zone),
        logger,
        certificatePollMs,
        onConnection: (stream, origin) => broker.handle(stream, origin),
      }),
  )
  const management = new ManagementApi(broker, listeners, ApiKeys.fromFile(loaded.conf.api_key.bootstrap_file))

  await broker.start()
  const watches = broker.webhooks.map(
    (hook) => new FileWatch(hook.tlsFiles, () => hook.reload(), logger, certificatePollMs),
  )

  const stop = async () => {
    for (const watch of watches) watch.close()
    await broker.stop()
    await Promise.all([...listeners.map((listener) => listener.close()), management.close()])
  }
  try {
    const ports: Record<string, number> = {}
    for (const listener of listeners) ports[listener.id] = await listener.listen()
    const managementPort = await management.listen(loaded.conf.dashboard.listeners.http.bind)
    return {
      ports: {
        devices: ports['ssl:devices'] ?? 0,
        services: ports['ssl:services'] ?? 0,
        users: ports['wss:users'] ?? 0,
        management: managementPort,
      },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

type AnyListenerConf = SslListenerConf | WssListenerConf

function listenersOf(
  type: string,
  confs: Readonly<Record<string, AnyListenerConf | { readonly enable: false }>>,
): [string, AnyListenerConf][] {
  return Object.entries(confs).flatMap(([name, conf]) => (conf.enable ? [[`${type}:${name}`, conf]] : []))
}

const silent: BrokerLogger = { debug() {}, info() {}, warn() {}, error() {} }
