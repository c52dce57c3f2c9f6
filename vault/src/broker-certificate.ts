import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { commonNameOf, newKeyAndCsr, splitPem, type VaultClient, VaultError, verifyChain } from '@ares/chassis'
import type { BrokerFiles, CertsVolume } from './certs-volume'
import { BROKER_ADDRESSES, BROKER_COMMON_NAME, BROKER_NAMES } from './pki-roles'
import { textOf } from './setup'

export interface BrokerCertificateOptions {
  readonly vault: VaultClient
  readonly volume: CertsVolume
  /** DNS names and IP addresses beyond the ones inside, under which devices reach the broker. */
  readonly externalNames?: readonly string[]
  /** Renewed when less than this part of its life is left; default a third. */
  readonly renewBelow?: number
}

export interface BrokerCertificate {
  /** What was changed; empty when the certificate on disk is good for longer. */
  readonly changes: readonly string[]
  readonly notBefore: Date
  readonly notAfter: Date
}

/**
 * Keeps the broker's certificate in the certs volume: makes a new one when there is none, when key, chain or names do not
 * fit, when too little of its life is left, or when another intermediate issues now (a rotation: this is how the broker
 * moves over); otherwise leaves the files alone. The CA bundle must be there already.
 * @throws CertificateProblem when Vault's answer does not fit the bundle: then nothing is written
 */
export async function ensureBrokerCertificate(options: BrokerCertificateOptions): Promise<BrokerCertificate> {
  const { volume, externalNames = [], renewBelow = 1 / 3 } = options
  const ca = await volume.readCa()
  if (!ca) throw new Error(`${volume.caFile} does not hold a root certificate: run the bootstrap first.`)
  const wanted = wantedNames(externalNames)

  const present = await volume.readBroker()
  if (
    present &&
    isUsable(present, ca.rootPem, ca.intermediatePems, wanted) &&
    lifeLeft(present) >= renewBelow &&
    (await isOfIssuingCa(options.vault, present))
  ) {
    return { changes: await volume.ensureBrokerAccess(), ...lifeOf(present) }
  }

  const fresh = await sign(options.vault, wanted)
  const { files, intermediatePem } = fresh
  // The bundle before the certificate, so that nobody meets a certificate he cannot verify (after a CA rotation).
  const known = ca.intermediatePems.includes(intermediatePem)
  const intermediatePems = known ? ca.intermediatePems : [...ca.intermediatePems, intermediatePem]
  if (!isUsable(files, ca.rootPem, intermediatePems, wanted)) {
    throw new Error(
      'The broker certificate from Vault does not fit its key, names or the CA bundle; nothing was written.',
    )
  }
  const changes = known ? [] : await volume.writeCa(ca.rootPem, intermediatePems)
  changes.push(...(await volume.writeBroker(files)))
  return { changes, ...lifeOf(files) }
}

/** With Vault away nothing can be said against the certificate that is there. */
async function isOfIssuingCa(vault: VaultClient, { chainPem }: BrokerFiles): Promise<boolean> {
  try {
    const issuing = (await vault.read('pki_int/ca/pem'))?.text
    return !issuing || splitPem(chainPem)[1]?.trim() === issuing.trim()
  } catch (error) {
    if (error instanceof VaultError && (error.temporary || error.code === 'token_gone')) return true
    throw error
  }
}

interface WantedNames {
  readonly dns: readonly string[]
  readonly ip: readonly string[]
}

function wantedNames(externalNames: readonly string[]): WantedNames {
  const external = [...new Set(externalNames)]
  return {
    dns: [...new Set([...BROKER_NAMES, ...external.filter((name) => !isIP(name))])],
    ip: [...new Set([...BROKER_ADDRESSES, ...external.filter((name) => isIP(name))])],
  }
}

async function sign(vault: VaultClient, names: WantedNames): Promise<{ files: BrokerFiles; intermediatePem: string }> {
  const { keyPem, csrPem } = await newKeyAndCsr(BROKER_COMMON_NAME)
  const path = 'pki_int/sign/broker'
  const answer = await vault.write(path, {
    csr: csrPem,
    common_name: BROKER_COMMON_NAME,
    alt_names: names.dns.join(','),
    ip_sans: names.ip.join(','),
  })
  const intermediatePem = `${textOf(answer, 'issuing_ca', path).trim()}\n`
  const chainPem = `${textOf(answer, 'certificate', path).trim()}\n${intermediatePem}`
  return { files: { keyPem, chainPem }, intermediatePem }
}

function isUsable(
  { keyPem, chainPem }: BrokerFiles,
  rootPem: string,
  intermediatePems: readonly string[],
  wanted: WantedNames,
): boolean {
  const [leafPem, ...sent] = splitPem(chainPem)
  if (!leafPem || sent.length === 0 || !sent.every((pem) => intermediatePems.includes(pem))) return false
  try {
    const leaf = new X509Certificate(leafPem)
    // With the root and what is sent alone: so the peers see it.
    verifyChain(leaf, [rootPem, ...sent])
    return (
      leaf.checkPrivateKey(createPrivateKey(keyPem)) &&
      commonNameOf(leaf) === BROKER_COMMON_NAME &&
      namesOf(leaf) ===
        [...wanted.dns.map((name) => `DNS:${name}`), ...wanted.ip.map((ip) => `IP Address:${ip}`)].sort().join()
    )
  } catch {
    return false // broken, expired or of another CA: a new one takes its place
  }
}

const namesOf = (certificate: X509Certificate): string => (certificate.subjectAltName ?? '').split(', ').sort().join()

function lifeOf(files: BrokerFiles): { readonly notBefore: Date; readonly notAfter: Date } {
  const leaf = new X509Certificate(files.chainPem)
  return { notBefore: new Date(leaf.validFrom), notAfter: new Date(leaf.validTo) }
}

/** The part of the certificate's life that is still to come, 0 to 1. */
function lifeLeft(files: BrokerFiles): number {
  const { notBefore, notAfter } = lifeOf(files)
  return (notAfter.getTime() - Date.now()) / (notAfter.getTime() - notBefore.getTime())
}
