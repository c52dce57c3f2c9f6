/**
 * What listeners subscribe to, once per session. All of it is shared: each message goes to one listener of the group.
 * `telemetry/+` is how a device of MQTT 3.1.1 names its format.
 */
export const SUBSCRIPTIONS = ['telemetry', 'telemetry/+', 'status', 'responses/+', 'certificate/request'].map(
  (branch) => `$share/ares4-listeners/ares4/+/${branch}`,
)
