import { z } from 'zod'
import { id, instant, label } from '../../http/shapes'
import { issuedCertificate } from '../certificates/certificates.schema'

/** A serial number that also is the CN of a CSR: X.509 has room for 64 characters there. */
export const enrolledSerialNumber = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$/)
  .meta({
    example: 'AR-2026-000417',
    description: "The maker's: 1 to 64 letters, digits and ._:/- of ASCII. It becomes the name of the device.",
  })

export const newEnrollmentToken = z.object({
  name: label(),
  blueprintId: id().meta({ description: 'What the devices are made after: they get all its components.' }),
  maximumUses: z.int().min(1).max(100_000).default(1).meta({ description: 'How many devices may come in with it.' }),
  expiresInSeconds: z
    .int()
    .min(60)
    .max(90 * 86_400)
    .default(86_400),
  serialNumbers: z
    .array(enrolledSerialNumber)
    .max(2_000)
    .default([])
    .meta({ description: 'Only these may come in; empty: any.' }),
})

export const enrollmentToken = z
  .object({
    id: id(),
    organizationId: id(),
    blueprintId: id(),
    name: z.string(),
    maximumUses: z.int(),
    uses: z.int(),
    serialNumbers: z.array(z.string()),
    expiresAt: instant(),
    revokedAt: instant().nullable(),
    createdBy: id().nullable(),
    createdAt: instant(),
  })
  .meta({ id: 'EnrollmentToken' })

export const madeEnrollmentToken = enrollmentToken
  .extend({ token: z.string().meta({ description: 'Shown this once. Only its SHA-256 is kept.' }) })
  .meta({ id: 'MadeEnrollmentToken' })

export const newEnrollment = z.object({
  token: z.string().min(1).max(128),
  serialNumber: enrolledSerialNumber,
  csr: z.string().min(1).meta({
    description: 'PKCS #10 in PEM. Its only CN is the serial number, and it asks for no other name.',
  }),
})

export const enrollment = z
  .object({
    deviceId: id().meta({ description: 'MQTT client id, and the first label of the CN of the certificate.' }),
    organizationId: id(),
    blueprintId: id(),
    name: z.string(),
    components: z.array(z.string()).meta({ description: 'Names of its components, as reports name them.' }),
    certificate: issuedCertificate,
  })
  .meta({ id: 'Enrollment' })

export type NewEnrollmentToken = z.output<typeof newEnrollmentToken>
export type NewEnrollment = z.output<typeof newEnrollment>
