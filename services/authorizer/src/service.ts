import {
  type GrpcServer,
  type LeafSource,
  type Logger,
  type OpsServer,
  startGrpcServer,
  startOpsServer,
} from '@ares/chassis'
import { AccessServiceService } from '@ares/proto/directory/v1/access'
import type { AuthorizerConfig } from './config'
import { type AuthorizerContext, createContext } from './context'
import { CertificateReader } from './decision/certificate'
import { explainRpc } from './explain/explain.rpc'
import { JournalSender } from './journal/journal-sender'
import { DirectoryWatcher } from './replica/directory-watcher'
import { Admission } from './webhook/admission'
import { RefusalLog } from './webhook/refusal-log'
import { RepeatedRefusals } from './webhook/repeated-refusals'
import { WebhookServer } from './webhook/webhook-server'

export type { AuthorizerConfig } from './config'

/**
 * Answers EMQX's webhooks from a replica of the directory. It listens from the start, and denies everybody until the first
 * snapshot is there; then it goes on answering whatever becomes of api.
 */
export class AuthorizerService {
  private readonly watcher: DirectoryWatcher
  private readonly refusals: RefusalLog
  private readonly sender: JournalSender
  private readonly certificates: CertificateReader
  private readonly ends: (() => void | Promise<void>)[] = []
  private webhooks: WebhookServer | undefined
  private grpc: GrpcServer | undefined
  private ops: OpsServer | undefined

  private constructor(
    private readonly context: AuthorizerContext,
    private readonly stopping: AbortController,
  ) {
    const { api, replica, journal, logger, metrics, identity } = context
    this.refusals = new RefusalLog(logger)
    this.certificates = new CertificateReader(identity.current().caPem)
    this.sender = new JournalSender({
      journal,
      api: api.admissions,
      logger,
      onSent: (lines, result) => metrics.audit(lines, result),
    })
    this.watcher = new DirectoryWatcher({
      client: api.directory,
      replica,
      logger,
      onEnd: (cause) => metrics.streamEnded(cause),
      onCompared: (result) => metrics.compared(result),
    })
  }

  /** @param given another identity than Vault's, another logger or clock, for tests */
  static async create(
    config: AuthorizerConfig,
    given: { readonly identity?: LeafSource; readonly logger?: Logger; readonly clock?: () => number } = {},
  ): Promise<AuthorizerService> {
    const stopping = new AbortController()
    return new AuthorizerService(await createContext(config, stopping.signal, given), stopping)
  }

  async start(): Promise<void> {
    const { config, logger, health, registry, replica, journal, identity, metrics } = this.context
    health.check('directory', () => this.directoryCheck())
    this.ops = await startOpsServer({ bind: config.opsBind, health, metrics: registry, logger })
    const whenOld = config.refuseWhenOld ? { refuseWhenOlderThanMs: config.directoryOldAfterMs } : {}
    const repeated = new RepeatedRefusals()
    metrics.watchRepeated(repeated)
    const admission = new Admission({
      replica,
      metrics,
      logger,
      refusals: this.refusals,
      journal,
      repeated,
      rules: { certificates: this.certificates, ...whenOld },
    })
    this.webhooks = await WebhookServer.start({
      identity,
      bind: config.webhookBind,
      logger,
      hooks: { '/mqtt/authn': admission.connect, '/mqtt/authz': admission.action },
      onRefused: (cause) => {
        metrics.requestRefused(cause)
        this.refusals.refused('request refused', cause)
      },
    })
    this.grpc = await startGrpcServer({
      identity,
      bind: config.grpcBind,
      logger,
      metrics: registry,
      services: [{ definition: AccessServiceService, implementation: explainRpc(replica, whenOld) }],
      allow: { [AccessServiceService.explain.path]: ['api'] },
    })
    this.ends.push(identity.onRenewed((leaf) => this.certificates.trust(leaf.caPem)))
    this.watchAge()
    this.watcher.start()
    this.sender.start()
    logger.info('ready', { ports: this.ports })
  }

  /** The real ports, also where the configuration says 0. */
  get ports(): Readonly<Record<'webhook' | 'grpc' | 'ops', number | undefined>> {
    return { webhook: this.webhooks?.port, grpc: this.grpc?.port, ops: this.ops?.port }
  }

  async stop(): Promise<void> {
    this.stopping.abort()
    this.watcher.stop()
    await this.webhooks?.stop()
    await this.grpc?.stop()
    await this.sender.stop()
    for (const end of this.ends) await end()
    this.refusals.close()
    await this.ops?.stop()
    await this.context.close()
  }

  private directoryCheck(): { ok: boolean; detail: string } {
    const known = this.context.replica.knowledge()
    if (!known) return { ok: false, detail: 'no snapshot of the directory yet: everybody is denied' }
    const { config } = this.context
    const age = `version ${known.version}, ${Math.round(known.ageMs / 1_000)} s old`
    if (known.ageMs <= config.directoryOldAfterMs) return { ok: true, detail: age }
    // Still of use with old knowledge, so it stays ready unless it was told to refuse.
    return { ok: !config.refuseWhenOld, detail: `${age}: api is not heard` }
  }

  /** One line when the directory grows old, one when it is fresh again. */
  private watchAge(): void {
    const { replica, config, logger } = this.context
    let old = false
    const timer = setInterval(() => {
      const known = replica.knowledge()
      if (!known || known.ageMs > config.directoryOldAfterMs === old) return
      old = !old
      const fields = { directoryVersion: String(known.version), directoryAgeMs: Math.round(known.ageMs) }
      if (!old) logger.info('the directory is up to date again', fields)
      else if (config.refuseWhenOld) logger.error('the directory is too old; new connections are refused', fields)
      else logger.warn('the directory is old; decisions go on from what is known', fields)
    }, 1_000)
    this.ends.push(() => clearInterval(timer))
  }
}
