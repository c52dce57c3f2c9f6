import { createLogger, createMetrics, type Leaf, type Logger } from '@ares/chassis'
import { TestIdentity } from '@ares/chassis/testing'
import { CertificateReader } from '../decision/certificate'
import { AdmissionJournal } from '../journal/admission-journal'
import { DirectoryReplica } from '../replica/directory-replica'
import { Admission } from '../webhook/admission'
import { AdmissionMetrics } from '../webhook/admission-metrics'
import { RefusalLog } from '../webhook/refusal-log'
import { RepeatedRefusals } from '../webhook/repeated-refusals'
import { WebhookServer } from '../webhook/webhook-server'
import { deviceEntry, snapshot } from './test-directory'

/** The hooks over a replica with these devices, with metrics, journal and log lines as in the service. */
export function admissionOver(
  caPem: string,
  devices: readonly { readonly id: string; readonly serial: Buffer }[],
): {
  readonly admission: Admission
  readonly journal: AdmissionJournal
  readonly metrics: AdmissionMetrics
  readonly logger: Logger
} {
  const logger = createLogger({ service: 'authorizer' })
  const replica = new DirectoryReplica()
  for (const event of snapshot(devices.map(({ id, serial }) => deviceEntry(id, [serial])))) replica.receive(event)
  const journal = new AdmissionJournal()
  const metrics = new AdmissionMetrics(createMetrics('authorizer'), replica, journal)
  const rules = { certificates: new CertificateReader(caPem) }
  const admission = new Admission({
    replica,
    metrics,
    logger,
    refusals: new RefusalLog(logger),
    journal,
    repeated: new RepeatedRefusals(),
    rules,
  })
  return { admission, journal, metrics, logger }
}

/** The webhooks over such a replica. What is noted is taken away each second, as if api had it. */
export function startWebhooks(
  leaf: Leaf,
  devices: readonly { readonly id: string; readonly serial: Buffer }[],
): Promise<WebhookServer> {
  const { admission, journal, metrics, logger } = admissionOver(leaf.caPem, devices)
  setInterval(() => journal.take(Number.POSITIVE_INFINITY), 1_000).unref()
  return WebhookServer.start({
    identity: new TestIdentity(leaf),
    bind: { host: '127.0.0.1', port: 0 },
    logger,
    hooks: { '/mqtt/authn': admission.connect, '/mqtt/authz': admission.action },
    onRefused: (cause) => metrics.requestRefused(cause),
  })
}
