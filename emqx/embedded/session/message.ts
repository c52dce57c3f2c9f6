/** A message on its way to subscribers. */
export interface Message {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
}

export type Qos = Message['qos']

/** The QoS of a delivery: what was published, at most what was granted. */
export function lowerQos(published: Qos, granted: Qos): Qos {
  return Math.min(published, granted) as Qos
}

/** A PUBLISH of MQTT 3.1.1 as bytes (clause 3.3). `messageId` counts only for QoS 1 and 2. */
export function publishFrame(
  message: { readonly topic: string; readonly payload: Buffer },
  qos: Qos,
  messageId: number,
  flags: { readonly dup: boolean; readonly retain: boolean },
): Buffer {
  const topicBytes = Buffer.byteLength(message.topic)
  const remaining = 2 + topicBytes + (qos > 0 ? 2 : 0) + message.payload.length
  const lengthBytes = remaining < 128 ? 1 : remaining < 16_384 ? 2 : remaining < 2_097_152 ? 3 : 4
  const frame = Buffer.allocUnsafe(1 + lengthBytes + remaining)
  frame[0] = 0x30 | (flags.dup ? 0x08 : 0) | (qos << 1) | (flags.retain ? 0x01 : 0)
  let offset = 1
  for (let rest = remaining, i = 0; i < lengthBytes; i++) {
    const digit = rest % 128
    rest = Math.floor(rest / 128)
    frame[offset++] = rest > 0 ? digit | 0x80 : digit
  }
  offset = frame.writeUInt16BE(topicBytes, offset)
  offset += frame.write(message.topic, offset)
  if (qos > 0) offset = frame.writeUInt16BE(messageId, offset)
  message.payload.copy(frame, offset)
  return frame
}

/** A PUBREL (clause 3.6), for a session that is resumed in the middle of a QoS 2 delivery. */
export function pubrelFrame(messageId: number): Buffer {
  return Buffer.from([0x62, 0x02, messageId >> 8, messageId & 0xff])
}
