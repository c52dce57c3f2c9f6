/** Tags of IngestRequest and what is in it: field number << 3 | wire type (0 varint, 1 eight bytes, 2 length-delimited). */
export const TAG = {
  request: { batchId: 10, listener: 18, messages: 26 },
  message: { deviceId: 10, receivedAt: 18, payload: 26, report: 34, undecodable: 42, topic: 50 },
  report: { sequence: 8, component: 18, timestamp: 26, metrics: 34, samples: 42 },
  sample: { component: 10, timestamp: 18, metrics: 26 },
  entry: { key: 10, value: 18 },
  value: { number: 9, flag: 16, text: 26 },
  undecodable: { reason: 10, detail: 18 },
  timestamp: { seconds: 8, nanos: 16 },
} as const

/** Thrown where the generated code has to take over; one object, because it is no error. */
export const UNUSUAL = Symbol('unusual')
