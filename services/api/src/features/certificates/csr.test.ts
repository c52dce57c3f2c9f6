import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'
import { checkCsr } from './csr'

const NAME = '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11.device.ares4.internal'
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

async function csr({ algorithm = EC('P-256'), name = [{ CN: [NAME] }], extensions = [], signWithOther }: Wish = {}) {
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

describe('a CSR', () => {
  it.each([
    ['EC P-256', EC('P-256')],
    ['EC P-384', EC('P-384')],
    ['RSA 2048', RSA(2_048)],
    ['Ed25519', { name: 'Ed25519' }],
  ])('with a key of %s is taken', async (_what, algorithm) => {
    const pem = await csr({ algorithm })
    const checked = await checkCsr(`\r\n${pem.replaceAll('\n', '\r\n')}\r\n`, NAME)
    expect(checked.pem).toContain('-----BEGIN CERTIFICATE REQUEST-----')
    expect(checked.publicKey.length).toBeGreaterThan(40)
  })

  const san = () => new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: NAME }])
  const flipped = async () => {
    const lines = (await csr()).split('\n')
    const at = lines.length - 2
    const last = lines[at] ?? ''
    lines[at] = `${last[0] === 'A' ? 'B' : 'A'}${last.slice(1)}`
    return lines.join('\n')
  }

  const refusals: Array<readonly [string, string, () => Promise<string>]> = [
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
      async () => (await csr()).replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE'),
    ],
    ['that is cut off', 'csr_malformed', async () => (await csr()).slice(0, -10)],
    ['with a second one behind it', 'csr_not_alone', async () => `${await csr()}\n${await csr()}`],
    ['with text before it', 'csr_not_alone', async () => `Certificate Request:\n${await csr()}`],
    [
      'with a private key beside it',
      'csr_not_alone',
      async () => `${await csr()}\n-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----`,
    ],
    ['of 17 KiB', 'csr_too_large', async () => 'A'.repeat(17 * 1_024)],
    ['signed with another key', 'csr_signature_wrong', () => csr({ signWithOther: true })],
    ['that was changed after it was signed', 'csr_signature_wrong', flipped],
    ['signed with SHA-1', 'csr_signature_weak', () => csr({ algorithm: RSA(2_048, 'SHA-1') })],
    ['with RSA 1024', 'csr_key_not_allowed', () => csr({ algorithm: RSA(1_024) })],
    ['with EC P-521', 'csr_key_not_allowed', () => csr({ algorithm: EC('P-521') })],
    ['without a CN', 'csr_common_name_missing', () => csr({ name: [{ O: ['Ares'] }] })],
    ['with two CNs, ours last', 'csr_common_name_repeated', () => csr({ name: [{ CN: ['evil'] }, { CN: [NAME] }] })],
    ['with two CNs in one RDN', 'csr_common_name_repeated', () => csr({ name: [{ CN: [NAME, 'evil'] }] })],
    ['with the name of another device', 'csr_common_name_other', () => csr({ name: [{ CN: [`x${NAME.slice(1)}`] }] })],
    [
      'with the name of a service',
      'csr_common_name_other',
      () => csr({ name: [{ CN: ['api.service.ares4.internal'] }] }),
    ],
    ['in capitals', 'csr_common_name_not_canonical', () => csr({ name: [{ CN: [NAME.toUpperCase()] }] })],
    ['with a dot at the end', 'csr_common_name_not_canonical', () => csr({ name: [{ CN: [`${NAME}.`] }] })],
    [
      'with full-width letters',
      'csr_common_name_not_canonical',
      () => csr({ name: [{ CN: [NAME.replace('device', 'ｄevice')] }] }),
    ],
    ['with an alternative name', 'csr_alternative_names', async () => csr({ extensions: [san()] })],
  ]
  it.each(refusals)('%s is refused as %s', async (_what, code, make) => {
    await expect(checkCsr(await make(), NAME)).rejects.toMatchObject({ kind: 'invalid', code })
  })
})
