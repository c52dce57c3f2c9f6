import { z } from 'zod'
import type { ConnectRequest } from '../decision/authn'
import type { ActionRequest } from '../decision/authz'

/** The body templates of emqx.conf. EMQX sends every value as a string; an unknown placeholder arrives as it is written. */
const text = z.string()

const connectBody = z.object({
  clientid: text,
  username: text,
  password: text,
  peerhost: text,
  cert_common_name: text,
  cert_pem: text,
  zone: text,
}) satisfies z.ZodType<ConnectRequest>

const actionBody = z.object({
  clientid: text,
  username: text,
  peerhost: text,
  cert_common_name: text,
  topic: text,
  action: z.enum(['publish', 'subscribe']),
  qos: z.enum(['0', '1', '2']),
  retain: z.enum(['true', 'false']),
}) satisfies z.ZodType<ActionRequest>

/** @returns undefined for anything that is not the body as configured */
export const readConnect = (body: Buffer): ConnectRequest | undefined => read(connectBody, body)

/** @returns undefined for anything that is not the body as configured */
export const readAction = (body: Buffer): ActionRequest | undefined => read(actionBody, body)

function read<T>(schema: z.ZodType<T>, body: Buffer): T | undefined {
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch {
    return undefined // any bytes may come; what is not JSON is malformed
  }
  return schema.safeParse(value).data
}
