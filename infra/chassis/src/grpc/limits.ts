/** Twice the largest batch of telemetry that the contract allows. */
const DEFAULT_MESSAGE_BYTES = 16 * 1024 * 1024

/** Both sides ask whether the other is still there: a peer that vanished is noticed within half a minute. */
export const KEEPALIVE = {
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
} as const

/** The same limit for both directions. */
export const messageLimits = (bytes: number = DEFAULT_MESSAGE_BYTES) => ({
  'grpc.max_receive_message_length': bytes,
  'grpc.max_send_message_length': bytes,
})
