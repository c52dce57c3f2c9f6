import type { PlainContent, PlainReport } from '@ares/proto/plain-telemetry'

/**
 * Decoders: from the bytes of a telemetry message to a report that api can take without looking at the bytes again.
 *
 * Every decoder gives a report or says why there is none. It never throws, and its time is bounded by the size and depth
 * of what it reads. What is stated here holds for all formats (`decoder.suite.test.ts` runs the same cases on each):
 *
 * | in the payload                                        | answer                        |
 * |-------------------------------------------------------|-------------------------------|
 * | more than 256 KiB                                     | too_large, before parsing     |
 * | nothing, no metric, no sample                         | empty                         |
 * | not the format, invalid UTF-8 in JSON                 | malformed                     |
 * | nested deeper than 8                                  | too_deep, before parsing      |
 * | a key twice in one JSON object                        | duplicate_key                 |
 * | NaN, Infinity, a number over the range of a double    | malformed or bad_value        |
 * | a value that is no number, boolean or text <= 1 KiB   | bad_value                     |
 * | a name that is empty, longer than 64, or `__proto__`  | bad_value                     |
 * | a text that PostgreSQL cannot hold (NUL, half a pair) | bad_value                     |
 * | an instant that cannot be read, or outside year 1-9999| bad_timestamp                 |
 * | an unknown format                                     | unsupported_format            |
 * | members we do not know                                | ignored, devices may send more|
 *
 * How far an instant may lie ahead or back is not known here: api decides it. The same entry twice in a protobuf map is
 * not an error there: the protobuf standard says that the last one stands.
 */
export interface Decoder {
  /** @param receivedAt epoch milliseconds: what a format with relative times (SenML) counts from */
  decode(payload: Buffer, receivedAt: number): Decoded
}

export type Decoded = PlainContent

/** The stable words of `Undecodable.reason`. */
export type UndecodableReason =
  | 'malformed'
  | 'too_large'
  | 'too_deep'
  | 'duplicate_key'
  | 'bad_value'
  | 'bad_timestamp'
  | 'empty'
  | 'unsupported_format'

/** Limits of a telemetry message, as the contract states them. */
export const MAX_PAYLOAD_BYTES = 256 * 1024
export const MAX_DEPTH = 8
export const MAX_METRICS = 64
export const MAX_SAMPLES = 1_000
export const MAX_NAME_LENGTH = 64
export const MAX_TEXT_BYTES = 1_024

/** Thrown inside a decoder only; `guarded` turns it into an answer. */
export class Unreadable extends Error {
  constructor(
    readonly reason: UndecodableReason,
    detail: string,
  ) {
    super(detail)
  }
}

/** Wraps the parsing part of a format: bounds the size before it, and turns what it throws into an answer. */
export function guarded(read: (payload: Buffer, receivedAt: number) => PlainReport): Decoder {
  return {
    decode(payload, receivedAt) {
      if (payload.length > MAX_PAYLOAD_BYTES) {
        return undecodable('too_large', `${payload.length} bytes, at most ${MAX_PAYLOAD_BYTES} are taken`)
      }
      if (payload.length === 0) return undecodable('empty', 'the payload has no bytes')
      try {
        return { $case: 'report', value: read(payload, receivedAt) }
      } catch (error) {
        if (error instanceof Unreadable) return undecodable(error.reason, error.message)
        // The parser's own message may quote the payload, so it stays out.
        return undecodable('malformed', 'the payload is not valid in its format')
      }
    },
  }
}

/** An answer that says why there is no report. @param detail at most 256 characters are kept */
export function undecodable(reason: UndecodableReason | 'rejected_by_store', detail: string): Decoded {
  return { $case: 'undecodable', value: { reason, detail: detail.slice(0, 256) } }
}
