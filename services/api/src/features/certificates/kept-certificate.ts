import { createHash, type KeyObject } from 'node:crypto'
import { splitPem } from '@ares/chassis'
import type { Certificate } from '../../generated/prisma/client'
import type { SignedCertificate } from './pki'

/** SHA-256 of a public key (SubjectPublicKeyInfo), 64 lower-case hexadecimal digits. */
export function publicKeyHashOf(key: KeyObject | Buffer): string {
  const der = Buffer.isBuffer(key) ? key : key.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(der).digest('hex')
}

/** A certificate as it was handed out; undefined for one that is older than the column that keeps it. */
export function handedOut(row: Certificate): SignedCertificate | undefined {
  const [certificatePem, ...chainPem] = splitPem(row.pem ?? '')
  return certificatePem === undefined ? undefined : { ...row, certificatePem, chainPem }
}
