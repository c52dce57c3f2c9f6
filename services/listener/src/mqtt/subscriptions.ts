import { topics } from '@ares/proto'

/** What every listener says to the others. Not shared: each hears all. */
export const PEERS = topics.listenerNews('+')

/**
 * What the listeners of the group subscribe to, once per session. All of it is shared: each message goes to one of them.
 * `telemetry/+` is how a device of MQTT 3.1.1 names its format.
 */
const SHARED = ['telemetry', 'telemetry/+', 'status', 'responses/+', 'certificate/request'].map(
  (branch) => `$share/ares4-listeners/ares4/+/${branch}`,
)

export const SUBSCRIPTIONS = [...SHARED, PEERS] as const
