import { z } from 'zod'
import { id, instant } from '../../http/shapes'
import type { SignedCertificate } from './pki'

const serial = z.string().meta({ example: '55:66:40:fd:0e', description: 'As Vault writes it.' })
const fingerprint = z.string().meta({ description: 'SHA-256 of the DER, hexadecimal.' })

export const newCertificate = z.object({
  csr: z.string().min(1).meta({
    description: 'PKCS #10 in PEM. Its only CN is `<deviceId>.device.ares4.internal`, and it asks for no other name.',
  }),
})

export const issuedCertificate = z
  .object({
    serial,
    certificate: z.string().meta({ description: 'PEM.' }),
    chain: z.array(z.string()).meta({ description: 'PEM: the intermediate, then the root.' }),
    fingerprint,
    notBefore: instant(),
    expiresAt: instant(),
  })
  .meta({ id: 'IssuedCertificate' })

export const certificate = z
  .object({
    serial,
    fingerprint,
    notBefore: instant(),
    expiresAt: instant(),
    state: z.enum(['active', 'retired', 'revoked']),
    requestedBy: id().nullable().meta({ description: 'Who asked for it; null: the device itself.' }),
    createdAt: instant(),
    retiredAt: instant().nullable(),
    revokedAt: instant().nullable(),
    revocationReason: z.string().nullable(),
  })
  .meta({ id: 'Certificate' })

export const answerOf = (signed: SignedCertificate): z.input<typeof issuedCertificate> => ({
  serial: signed.serial,
  certificate: signed.certificatePem,
  chain: [...signed.chainPem],
  fingerprint: signed.fingerprint,
  notBefore: signed.notBefore,
  expiresAt: signed.notAfter,
})
