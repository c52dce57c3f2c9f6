import { webcrypto } from 'node:crypto'
import { x509 } from '@ares/chassis'
import type { CsrRule } from '../features/certificates/csr'

const EC = (namedCurve: string) => ({ name: 'ECDSA', namedCurve, hash: 'SHA-256' })
const RSA = (modulusLength: number, hash = 'SHA-256') => ({
  name: 'RSASSA-PKCS1-v1_5',
  modulusLength,
  publicExponent: new Uint8Array([1, 0, 1]),
  hash,
})

interface Wish {
  readonly algorithm?: { readonly name: string }
  readonly name?: x509.JsonName
  readonly extensions?: x509.Extension[]
  readonly signWithOther?: boolean
}

/** In the name of a device, unless the wish is for something else. */
export async function csrFor(
  commonName: string,
  { algorithm = EC('P-256'), name = [{ CN: [commonName] }], extensions = [], signWithOther }: Wish = {},
): Promise<string> {
  const make = () =>
    webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>
  const keys = await make()
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name,
    keys: signWithOther ? { publicKey: keys.publicKey, privateKey: (await make()).privateKey } : keys,
    signingAlgorithm: algorithm,
    extensions,
  })
  return request.toString('pem')
}

/** Keys that a device may have. */
export const ALLOWED_KEYS = [
  ['EC P-256', EC('P-256')],
  ['EC P-384', EC('P-384')],
  ['RSA 2048', RSA(2_048)],
  ['Ed25519', { name: 'Ed25519' }],
] as const

/** What is wrong, the rule that says so, and the CSR for a device of that name. */
export const REFUSED_CSRS: ReadonlyArray<readonly [string, CsrRule, (name: string) => Promise<string>]> = [
  ['that is empty', 'csr_malformed', async () => ''],
  ['that is no PEM', 'csr_malformed', async () => 'hello'],
  [
    'that holds garbage',
    'csr_malformed',
    async () => '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----',
  ],
  [
    'that is a certificate',
    'csr_malformed',
    async (name) => (await csrFor(name)).replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE'),
  ],
  ['that is cut off', 'csr_malformed', async (name) => (await csrFor(name)).slice(0, -10)],
  ['with a second one behind it', 'csr_not_alone', async (name) => `${await csrFor(name)}\n${await csrFor(name)}`],
  ['with text before it', 'csr_not_alone', async (name) => `Certificate Request:\n${await csrFor(name)}`],
  [
    'with a private key beside it',
    'csr_not_alone',
    async (name) => `${await csrFor(name)}\n-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----`,
  ],
  ['of 17 KiB', 'csr_too_large', async () => 'A'.repeat(17 * 1_024)],
  ['signed with another key', 'csr_signature_wrong', (name) => csrFor(name, { signWithOther: true })],
  ['that was changed after it was signed', 'csr_signature_wrong', flipped],
  ['signed with SHA-1', 'csr_signature_weak', (name) => csrFor(name, { algorithm: RSA(2_048, 'SHA-1') })],
  ['with RSA 1024', 'csr_key_not_allowed', (name) => csrFor(name, { algorithm: RSA(1_024) })],
  ['with EC P-521', 'csr_key_not_allowed', (name) => csrFor(name, { algorithm: EC('P-521') })],
  ['without a CN', 'csr_common_name_missing', (name) => csrFor(name, { name: [{ O: ['Ares'] }] })],
  [
    'with two CNs, ours last',
    'csr_common_name_repeated',
    (name) => csrFor(name, { name: [{ CN: ['evil'] }, { CN: [name] }] }),
  ],
  ['with two CNs in one RDN', 'csr_common_name_repeated', (name) => csrFor(name, { name: [{ CN: [name, 'evil'] }] })],
  [
    'with the name of another device',
    'csr_common_name_other',
    (name) => csrFor(name, { name: [{ CN: [`x${name.slice(1)}`] }] }),
  ],
  [
    'with the name of a service',
    'csr_common_name_other',
    (name) => csrFor(name, { name: [{ CN: ['api.service.ares4.internal'] }] }),
  ],
  ['in capitals', 'csr_common_name_not_canonical', (name) => csrFor(name, { name: [{ CN: [name.toUpperCase()] }] })],
  ['with a dot at the end', 'csr_common_name_not_canonical', (name) => csrFor(name, { name: [{ CN: [`${name}.`] }] })],
  [
    'with full-width letters',
    'csr_common_name_not_canonical',
    (name) => csrFor(name, { name: [{ CN: [name.replace('device', 'ｄevice')] }] }),
  ],
  ['with an alternative name', 'csr_alternative_names', (name) => csrFor(name, { extensions: [alternative(name)] })],
]

function alternative(value: string): x509.Extension {
  return new x509.SubjectAlternativeNameExtension([{ type: 'dns', value }])
}

async function flipped(name: string): Promise<string> {
  const lines = (await csrFor(name)).split('\n')
  const at = lines.length - 2
  const last = lines[at] ?? ''
  lines[at] = `${last[0] === 'A' ? 'B' : 'A'}${last.slice(1)}`
  return lines.join('\n')
}
