import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** The keys of `api_key.bootstrap_file`: lines `key:secret` or `key:secret:administrator`. */
export class ApiKeys {
  private readonly digests = new Map<string, Buffer>()

  /** @throws Error when the file cannot be read */
  static fromFile(file: string | undefined): ApiKeys {
    const keys = new ApiKeys()
    if (file === undefined) return keys
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const [key, secret, role] = line.trim().split(':')
      if (!key || !secret) continue
      // The community edition stops at a line with another role, and does not load what follows it (measured).
      if (role !== undefined && role !== 'administrator') break
      keys.digests.set(key, digest(secret))
    }
    return keys
  }

  /** Checks an `Authorization: Basic …` header. */
  admits(authorization: string | undefined): boolean {
    const encoded = /^Basic (.+)$/i.exec(authorization ?? '')?.[1]
    const [key, ...secret] = Buffer.from(encoded ?? '', 'base64')
      .toString('utf8')
      .split(':')
    const expected = this.digests.get(key ?? '')
    return expected !== undefined && timingSafeEqual(expected, digest(secret.join(':')))
  }
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}
