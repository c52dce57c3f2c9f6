import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Decision, Reason } from '../decision/decision'
import type { AdmissionJournal } from '../journal/admission-journal'
import type { DirectoryReplica } from '../replica/directory-replica'

/** What the authorizer counts. */
export class AdmissionMetrics {
  private readonly seconds: Histogram
  private readonly refusedRequests: Counter
  private readonly streamEnds: Counter
  private readonly comparisons: Counter
  private readonly audited: Counter
  /** Decisions since somebody last asked for the metrics: to find a counter by its labels costs as much as a decision. */
  private readonly tallies = { authn: new Map<Reason, Tally>(), authz: new Map<Reason, Tally>() }
  private untimed = 0

  constructor(
    private readonly registry: Registry,
    replica: DirectoryReplica,
    journal: AdmissionJournal,
  ) {
    const registers = [registry]
    const { tallies } = this
    new Counter({
      name: 'ares_authorizer_decisions_total',
      help: 'Decisions by hook, result and reason.',
      labelNames: ['hook', 'result', 'reason'],
      registers,
      collect() {
        for (const hook of HOOKS) {
          for (const [reason, { result, count }] of tallies[hook]) this.inc({ hook, result, reason }, count)
          tallies[hook].clear()
        }
      },
    })
    this.seconds = new Histogram({
      name: 'ares_authorizer_decision_seconds',
      help: `Time from the body to the decision, of one in ${TIMED_ONE_IN}.`,
      labelNames: ['hook'],
      buckets: [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.025],
      registers,
    })
    this.audited = new Counter({
      name: 'ares_authorizer_audited_lines_total',
      help: 'Lines of the audit by what became of them; failed ones are sent again.',
      labelNames: ['result'],
      registers,
    })
    gauge('ares_authorizer_audit_waiting', 'Lines that wait to be taken by api.', () => journal.size)
    gauge(
      'ares_authorizer_audit_without_particulars',
      'Decisions that were too many to be noted with client, address and topic, since the start.',
      () => journal.withoutParticulars,
    )
    this.refusedRequests = new Counter({
      name: 'ares_authorizer_refused_requests_total',
      help: 'Handshakes and requests that came to no decision, by cause.',
      labelNames: ['cause'],
      registers,
    })
    this.streamEnds = new Counter({
      name: 'ares_authorizer_directory_stream_ends_total',
      help: 'Ends of the directory stream, by cause.',
      labelNames: ['cause'],
      registers,
    })
    this.comparisons = new Counter({
      name: 'ares_authorizer_directory_comparisons_total',
      help: "Comparisons of the replica's checksum with that of api's database, by result.",
      labelNames: ['result'],
      registers,
    })
    gauge('ares_authorizer_directory_age_seconds', 'Age of what is known; -1 without a first snapshot.', () => {
      const known = replica.knowledge()
      return known ? known.ageMs / 1_000 : -1
    })
    gauge('ares_authorizer_directory_version', 'Version of the directory that is known.', () =>
      Number(replica.position.version),
    )
    gauge('ares_authorizer_directory_devices', 'Devices that are known.', () => replica.sizes().devices)
    gauge(
      'ares_authorizer_directory_revoked',
      'Revoked certificates that are known; each is forgotten when its own end has passed.',
      () => replica.sizes().revoked,
    )
    gauge(
      'ares_authorizer_directory_left_out',
      'Entries that made no sense and were left out.',
      () => replica.sizes().leftOut,
    )

    function gauge(name: string, help: string, value: () => number): void {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value())
        },
      })
    }
  }

  decided(hook: Hook, { result, reason }: Decision, startedMs: number): void {
    const tally = this.tallies[hook].get(reason)
    if (tally) tally.count += 1
    else this.tallies[hook].set(reason, { result, count: 1 })
    this.untimed += 1
    if (this.untimed < TIMED_ONE_IN) return
    this.untimed = 0
    this.seconds.observe({ hook }, (performance.now() - startedMs) / 1_000)
  }

  audit(lines: number, result: 'stored' | 'failed' | 'dropped'): void {
    this.audited.inc({ result }, lines)
  }

  watchRepeated(repeated: { readonly fromMemory: number }): void {
    new Gauge({
      name: 'ares_authorizer_refused_from_memory',
      help: 'Refusals of clients that were refused again and again, since the start; the decisions have them too.',
      registers: [this.registry],
      collect() {
        this.set(repeated.fromMemory)
      },
    })
  }

  requestRefused(cause: string): void {
    this.refusedRequests.inc({ cause })
  }

  compared(result: 'equal' | 'differs'): void {
    this.comparisons.inc({ result })
  }

  streamEnded(cause: string): void {
    this.streamEnds.inc({ cause })
  }
}

/** To put a time into its bucket costs 2 µs. */
const TIMED_ONE_IN = 16

const HOOKS = ['authn', 'authz'] as const
type Hook = (typeof HOOKS)[number]

/** A reason has one result. */
interface Tally {
  readonly result: Decision['result']
  count: number
}
