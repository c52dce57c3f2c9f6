import { createLogger, createMetrics, type Leaf } from '@ares/chassis'
import { CertificateReader } from '../decision/certificate'
import { AdmissionJournal } from '../journal/admission-journal'
import { DirectoryReplica } from '../replica/directory-replica'
import { Admission } from '../webhook/admission'
import { AdmissionMetrics } from '../webhook/admission-metrics'
import { RefusalLog } from '../webhook/refusal-log'
import { WebhookServer } from '../webhook/webhook-server'
import { TestIdentity } from './test-ca'
import { deviceEntry, snapshot } from './test-directory'

/** The webhooks over a replica with these devices, with metrics and log lines (on standard output) as in the service. */
export function startWebhooks(
  leaf: Leaf,
  devices: readonly { readonly id: string; readonly serial: Buffer }[],
): Promise<WebhookServer> {
  const logger = createLogger({ service: 'authorizer' })
  const replica = new DirectoryReplica()
  for (const event of snapshot(devices.map(({ id, serial }) => deviceEntry(id, [serial])))) replica.receive(event)
  const journal = new AdmissionJournal()
  const metrics = new AdmissionMetrics(createMetrics('authorizer'), replica, journal)
  const refusals = new RefusalLog(logger)
  const admission = new Admission({
    replica,
    metrics,
    logger,
    refusals,
    journal,
    rules: { certificates: new CertificateReader(leaf.caPem) },
  })
  return WebhookServer.start({
    identity: new TestIdentity(leaf),
    bind: { host: '127.0.0.1', port: 0 },
    logger,
    hooks: { '/mqtt/authn': admission.connect, '/mqtt/authz': admission.action },
    onRefused: (cause) => metrics.requestRefused(cause),
  })
}
