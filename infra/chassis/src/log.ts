import type { Writable } from 'node:stream'
import * as winston from 'winston'
import { isSecretName, redact, redactText } from './redaction'
import { requestId } from './request-id'

export type Logger = winston.Logger

/**
 * One JSON object a line: `timestamp`, `level`, `service`, `message`, `requestId` where there is one, and the fields given.
 * Secrets are taken out by the name of their field and by their shape; errors become { name, message, code, stack }.
 */
export function createLogger(options: {
  readonly service: string
  /** error | warn | info | debug; default info */
  readonly level?: string
  /** Where the lines go; default standard output. */
  readonly stream?: Writable
}): Logger {
  return winston.createLogger({
    level: options.level ?? 'info',
    format: winston.format((info) => line(options.service, info))(),
    transports: [
      options.stream ? new winston.transports.Stream({ stream: options.stream }) : new winston.transports.Console(),
    ],
  })
}

const MESSAGE = Symbol.for('message')

function line(service: string, info: winston.Logform.TransformableInfo): winston.Logform.TransformableInfo {
  const { level, message, timestamp: _, ...rest } = info
  const id = requestId()
  const fields: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(rest)) {
    fields[name] = isSecretName(name) ? '[redacted]' : redact(value)
  }
  info[MESSAGE] = JSON.stringify({
    timestamp: new Date().toISOString(),
    level,
    service,
    message: typeof message === 'string' ? redactText(message) : redact(message),
    ...(id === undefined ? {} : { requestId: id }),
    ...fields,
  })
  return info
}
