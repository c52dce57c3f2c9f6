import { type Decoded, type Decoder, undecodable } from './decoder'
import { jsonReport } from './json-report'
import { protobufReport } from './protobuf-report'
import { senml } from './senml'

/** What a message says about its format. */
export interface FormatHint {
  /** Last part of the topic, `.../telemetry/<suffix>`: the way of MQTT 3.1.1. It wins over the content type. */
  readonly suffix?: string
  /** MQTT 5 content type, with or without parameters. */
  readonly contentType?: string
}

/** Decodes a telemetry payload in the format that the message names; JSON when it names none. */
export function decode(payload: Buffer, hint: FormatHint, receivedAt: number): Decoded {
  const decoder = decoderFor(hint)
  if (decoder) return decoder.decode(payload, receivedAt)
  const known = hint.suffix === undefined ? [...BY_CONTENT_TYPE.keys()] : [...BY_SUFFIX.keys()]
  const where = hint.suffix === undefined ? 'content type' : 'topic suffix'
  return undecodable('unsupported_format', `the ${where} is none of ${known.join(', ')}`)
}

const BY_SUFFIX: ReadonlyMap<string, Decoder> = new Map([
  ['json', jsonReport],
  ['senml', senml],
  ['protobuf', protobufReport],
])

const BY_CONTENT_TYPE: ReadonlyMap<string, Decoder> = new Map([
  ['application/json', jsonReport],
  ['application/senml+json', senml],
  ['application/protobuf', protobufReport],
  ['application/x-protobuf', protobufReport],
  ['application/vnd.google.protobuf', protobufReport],
])

function decoderFor({ suffix, contentType }: FormatHint): Decoder | undefined {
  if (suffix !== undefined) return BY_SUFFIX.get(suffix)
  if (!contentType) return jsonReport
  return BY_CONTENT_TYPE.get((contentType.split(';', 1)[0] ?? '').trim().toLowerCase())
}
