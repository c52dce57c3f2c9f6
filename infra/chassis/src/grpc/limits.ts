/** Twice the largest batch of telemetry that the contract allows. */
const DEFAULT_MESSAGE_BYTES = 16 * 1024 * 1024

/** Both sides ask whether the other is still there: a peer that vanished is noticed within half a minute. */
export const KEEPALIVE = {
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
} as const

/**
 * How much a peer may send, in a call and in all calls of a connection, before it has to hear that we took it. HTTP/2 begins
 * with 64 KiB: a batch of telemetry would wait half a dozen times until our event loop and the peer's come round to it.
 */
export const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024

/** The same limit for both directions. */
export const messageLimits = (bytes: number = DEFAULT_MESSAGE_BYTES) => ({
  'grpc.max_receive_message_length': bytes,
  'grpc.max_send_message_length': bytes,
})
