/** Certificates: what the chassis, vault and api need to make, read and check them. */

const notYet = (): never => {
  throw new Error('not built yet')
}

/** A fresh EC P-256 key, in memory only, and a request for a certificate in its name. */
export async function newKeyAndCsr(_commonName: string): Promise<{ readonly keyPem: string; readonly csrPem: string }> {
  return notYet()
}

/**
 * Walks from the leaf through the issuers to a root: names, signatures, CA flags and dates.
 * @returns the root, as PEM
 * @throws CertificateProblem that names the certificate and what is wrong with it */
export function verifyChain(_leafPem: string, _issuersPem: string | readonly string[], _at: Date = new Date()): string {
  return notYet()
}

/** The serial as Vault writes it: lower-case pairs with colons. */
export function serialOf(_certificatePem: string): string {
  return notYet()
}

/** The CN of a certificate's subject; undefined when there is none or more than one. */
export function commonNameOf(_certificatePem: string): string | undefined {
  return notYet()
}

/** The PEM blocks of a text, in their order, each with a newline at its end. */
export function splitPem(text: string): string[] {
  return (text.match(/-----BEGIN ([A-Z0-9 ]+)-----[\s\S]+?-----END \1-----/g) ?? []).map((block) => `${block}\n`)
}

/** A certificate, chain or CA bundle that must not be used; the message says which and why. */
export class CertificateProblem extends Error {
  override readonly name = 'CertificateProblem'
}

/** Waits, with a log line that names the file, until a file another part writes is there; then gives its text. */
export async function waitForFile(
  _file: string,
  _o: {
    readonly limitMs?: number
    readonly signal?: AbortSignal
    readonly logger?: { info(m: string, f?: object): void }
  },
): Promise<string> {
  return notYet()
}

/** Reads full_chain_ca.crt: it must hold a root and the intermediate under it, both valid now.
 *  @throws CertificateProblem that names the variable, the file and what is missing */
export async function loadCaFile(
  _file: string,
  _o: {
    readonly limitMs?: number
    readonly signal?: AbortSignal
    readonly logger?: { info(m: string, f?: object): void }
  } = {},
): Promise<string> {
  return notYet()
}
