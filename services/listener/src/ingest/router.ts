import type { Logger } from '@ares/chassis'
import { parseDeviceTopic, parseListenerNews } from '@ares/proto'
import type { Delivery } from '../mqtt/holding-client'
import type { Peers } from '../peers'
import type { IngestMetrics } from './ingest-metrics'
import type { RenewalSink } from './renewal-sink'
import type { ResponseSink } from './response-sink'
import type { StatusSink } from './status-sink'
import type { TelemetrySink } from './telemetry-sink'

/** Brings each message to the sink of its kind. Whoever takes it settles it. */
export class Router {
  constructor(
    private readonly sinks: {
      readonly telemetry: Pick<TelemetrySink, 'take'>
      readonly status: Pick<StatusSink, 'take'>
      readonly responses: Pick<ResponseSink, 'take'>
      readonly renewals: Pick<RenewalSink, 'take'>
      readonly peers: Pick<Peers, 'take'>
    },
    private readonly parts: { readonly metrics: IngestMetrics; readonly logger: Logger },
  ) {}

  route(delivery: Delivery): void {
    const topic = parseDeviceTopic(delivery.topic)
    switch (topic?.kind) {
      case 'telemetry':
        this.sinks.telemetry.take(delivery, topic.deviceId, topic.format)
        break
      case 'status':
        this.sinks.status.take(delivery, topic.deviceId)
        break
      case 'response':
        this.sinks.responses.take(delivery, topic.deviceId, topic.commandId)
        break
      case 'certificateRequest':
        this.sinks.renewals.take(delivery, topic.deviceId)
        break
      default:
        this.routeOther(delivery)
    }
  }

  private routeOther(delivery: Delivery): void {
    const listener = parseListenerNews(delivery.topic)
    if (listener === undefined) this.ignore(delivery)
    else this.sinks.peers.take(delivery, listener)
  }

  /** Only a subscription that somebody else made in our session brings such a topic; it belongs to nobody. */
  private ignore(delivery: Delivery): void {
    this.parts.metrics.messages.inc({ kind: 'other', read: 'ignored' })
    this.parts.logger.warn('a message on a topic that is none of ours is ignored', {
      topic: delivery.topic.slice(0, 128),
    })
    delivery.settle()
  }
}
