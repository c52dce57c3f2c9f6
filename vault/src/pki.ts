import type { VaultClient } from '@ares/chassis'
import { pkiRoles } from './pki-roles'
import { type Setup, textOf } from './setup'

export interface PkiOptions {
  /** Where others reach Vault for CRL, OCSP and issuers' certificates, e.g. `https://vault:8200`. */
  readonly publicAddress: string
  /** Further DNS names the broker's certificate may have. */
  readonly brokerNames: readonly string[]
}

/** Intermediates are counted: a rotation makes the next one. */
export const intermediateCommonName = (number: number): string => `Ares Intermediate CA ${number}`

const YEAR_H = 8_760
const HOUR_S = 3_600
const EC_KEY = { key_type: 'ec', key_bits: 256 }
/** As for the leaves: a slow clock must not find a CA that begins in its future. */
const NOT_BEFORE = { not_before_duration: '15m' }

/** Root CA in `pki` (10 years), intermediate in `pki_int` (5 years), their URLs, CRLs, tidying and roles. */
export async function ensurePki(setup: Setup, options: PkiOptions): Promise<void> {
  for (const mount of ['pki', 'pki_int']) await ensureUrls(setup, mount, options.publicAddress)
  await ensureRoot(setup)
  await ensureIntermediate(setup)

  // Without auto_rebuild each revocation signs the whole CRL anew: 72/s with none revoked, 4/s with 5,000. With it the CRL
  // follows later (or at once on pki_int/crl/rotate); OCSP knows immediately either way.
  const crl = { auto_rebuild: true, auto_rebuild_grace_period: '12h', expiry: '72h' }
  for (const mount of ['pki', 'pki_int']) await setup.ensure(`${mount}/config/crl`, crl)
  // Expired certificates would stay for ever.
  await setup.ensure('pki_int/config/auto-tidy', {
    enabled: true,
    interval_duration: 12 * HOUR_S,
    tidy_cert_store: true,
    tidy_revoked_certs: true,
    safety_buffer: 72 * HOUR_S,
  })
  for (const [name, role] of Object.entries(pkiRoles(options.brokerNames))) {
    await setup.ensure(`pki_int/roles/${name}`, role)
  }
}

/** The certificates of the house: the root, and every intermediate that can still have living leaves. */
export async function readCertificateAuthorities(
  vault: VaultClient,
): Promise<{ readonly rootPem: string; readonly intermediatePems: readonly string[] }> {
  const rootPem = await issuerPem(vault, 'pki', 'default')
  const issuers = await vault.list('pki_int/issuers')
  const pems = await Promise.all(issuers.map((id) => issuerPem(vault, 'pki_int', id)))
  // set-signed put the root beside the intermediate, so that answers carry the whole chain.
  return { rootPem, intermediatePems: pems.filter((pem) => pem !== rootPem) }
}

/** Before the CAs are made: a certificate carries the URLs that are set when it is signed. */
async function ensureUrls(setup: Setup, mount: string, publicAddress: string): Promise<void> {
  const path = `${publicAddress}/v1/${mount}`
  await setup.ensure(`${mount}/config/cluster`, { path, aia_path: path })
  // Named by issuer: after a rotation the old leaves go on in the old issuer's CRL, and `<mount>/crl` shows only the new one.
  const issuer = '{{cluster_aia_path}}/issuer/{{issuer_id}}'
  await setup.ensure(`${mount}/config/urls`, {
    enable_templating: true,
    issuing_certificates: [`${issuer}/der`],
    crl_distribution_points: [`${issuer}/crl/der`],
    ocsp_servers: ['{{cluster_aia_path}}/ocsp'],
  })
}

async function ensureRoot(setup: Setup): Promise<void> {
  if (await hasDefaultIssuer(setup.vault, 'pki')) return
  await setup.change('root CA', () =>
    setup.vault.write('pki/root/generate/internal', {
      common_name: 'Ares Root CA',
      issuer_name: 'root-1',
      key_name: 'root-1',
      ttl: `${10 * YEAR_H}h`,
      exclude_cn_from_sans: true,
      ...EC_KEY,
      ...NOT_BEFORE,
    }),
  )
}

async function ensureIntermediate(setup: Setup): Promise<void> {
  const { vault } = setup
  if (!(await hasDefaultIssuer(vault, 'pki_int'))) {
    await setup.change('intermediate CA', () => makeIntermediate(vault, intermediateCommonName(1)))
  }
  // A call of its own, because Vault names only what it makes itself; a run may have been cut off before it.
  const at = 'pki_int/issuer/default'
  if ((await vault.read(at))?.data.issuer_name === '') {
    await setup.change('name of the intermediate CA', () => vault.write(at, { issuer_name: 'int-1' }))
  }
}

/**
 * A new intermediate in `pki_int`, signed by the root. It becomes the default only where there is none.
 * @returns the id of its issuer
 */
export async function makeIntermediate(vault: VaultClient, commonName: string): Promise<string> {
  const rootPem = await issuerPem(vault, 'pki', 'default')
  const request = await vault.write('pki_int/intermediate/generate/internal', {
    common_name: commonName,
    exclude_cn_from_sans: true,
    ...EC_KEY,
  })
  const signed = await vault.write('pki/root/sign-intermediate', {
    csr: textOf(request, 'csr', 'intermediate/generate'),
    common_name: commonName,
    ttl: `${5 * YEAR_H}h`,
    max_path_length: 0,
    exclude_cn_from_sans: true,
    ...NOT_BEFORE,
  })
  // With the root appended, answers carry [intermediate, root]; without it only the intermediate.
  const certificate = `${textOf(signed, 'certificate', 'root/sign-intermediate').trim()}\n${rootPem}`
  const { data } = await vault.write('pki_int/intermediate/set-signed', { certificate })
  // Issuer -> key; the root is among them and has none here.
  const mapping = Object.entries((data.mapping ?? {}) as Record<string, string>)
  const [made] = mapping.find(([, key]) => key !== '') ?? []
  if (!made) throw new Error('Vault took the new intermediate and does not say which issuer it is.')
  return made
}

/** The answer is 200 with an empty name when there is no CA yet. */
async function hasDefaultIssuer(vault: VaultClient, mount: string): Promise<boolean> {
  const issuers = await vault.read(`${mount}/config/issuers`)
  return Boolean(issuers?.data.default)
}

export const issuerPem = async (vault: VaultClient, mount: string, reference: string): Promise<string> => {
  const path = `${mount}/issuer/${reference}`
  return `${textOf(await vault.read(path), 'certificate', path).trim()}\n`
}
