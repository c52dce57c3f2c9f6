import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadCaFile, waitForFile } from './ca-file'
import { commonNameOf, newKeyAndCsr, serialOf, splitPem, verifyChain } from './certificates'
import type { Leaf } from './leaf'
import { TestAuthority } from './testing'
import { x509 } from './x509'

let ours: TestAuthority
let theirs: TestAuthority
let leaf: Leaf
beforeAll(async () => {
  ours = await TestAuthority.create('Ares')
  theirs = await TestAuthority.create('Other')
  leaf = await ours.leaf('api.service.ares4.internal')
})

describe('newKeyAndCsr', () => {
  it('makes a P-256 key and a request that proves it has it', async () => {
    const { keyPem, csrPem } = await newKeyAndCsr('listener.service.ares4.internal')
    const csr = new x509.Pkcs10CertificateRequest(csrPem)
    expect(csr.subject).toBe('CN=listener.service.ares4.internal')
    expect(csr.publicKey.algorithm).toMatchObject({ name: 'ECDSA', namedCurve: 'P-256' })
    expect(await csr.verify()).toBe(true)
    expect(keyPem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/)
  })
})

describe('a certificate', () => {
  it('has its serial in the form that Vault finds', () => {
    expect(serialOf(leaf.certificatePem)).toMatch(/^([0-9a-f]{2}:){15}[0-9a-f]{2}$/)
    expect(serialOf(leaf.certificatePem).replaceAll(':', '').toUpperCase()).toBe(
      new X509Certificate(leaf.certificatePem).serialNumber,
    )
  })

  it('has one common name', () => {
    expect(commonNameOf(leaf.certificatePem)).toBe('api.service.ares4.internal')
  })

  it('comes out of a bundle block by block', () => {
    expect(splitPem(`junk\n${leaf.chainPem}${leaf.keyPem}`)).toEqual([
      leaf.certificatePem,
      ours.intermediatePem,
      leaf.keyPem,
    ])
  })
})

describe('verifyChain', () => {
  it('walks from a leaf to the root', () => {
    expect(commonNameOf(verifyChain(leaf.certificatePem, ours.caPem))).toBe('Ares Root CA')
  })

  it('names the missing issuer', () => {
    expect(() => verifyChain(leaf.certificatePem, ours.rootPem)).toThrow(
      'api.service.ares4.internal was issued by "CN=Ares Intermediate CA", and no such CA is among the 1 that are trusted (Ares Root CA)',
    )
    expect(() => verifyChain(leaf.certificatePem, ours.intermediatePem)).toThrow('Ares Intermediate CA was issued by')
    expect(() => verifyChain(leaf.certificatePem, theirs.caPem)).toThrow('no such CA')
  })

  it('is not fooled by a CA of the same name', async () => {
    const twin = await TestAuthority.create('Ares')
    expect(() => verifyChain(leaf.certificatePem, twin.caPem)).toThrow('no such CA')
  })

  it('trusts no root that only came along', () => {
    expect(() => verifyChain(theirs.rootPem, ours.caPem)).toThrow('signed by itself')
  })

  it('refuses a certificate outside its time', async () => {
    const old = await ours.leaf('old.service.ares4.internal', { notAfter: new Date(Date.now() - 1_000) })
    expect(() => verifyChain(old.certificatePem, ours.caPem)).toThrow(/old.service.ares4.internal ended at/)
    expect(() => verifyChain(leaf.certificatePem, ours.caPem, new Date(0))).toThrow('is a clock wrong?')
  })
})

describe('the CA file', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ares-ca-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  const file = (name: string, text: string) => {
    writeFileSync(join(directory, name), text)
    return join(directory, name)
  }

  it('is taken when it holds root and intermediate, in any order', async () => {
    const path = file('good.crt', ours.rootPem + ours.intermediatePem)
    await expect(loadCaFile(path)).resolves.toContain('BEGIN CERTIFICATE')
  })

  it('is refused with its name and the exact problem', async () => {
    const check = (name: string, text: string) => loadCaFile(file(name, text))
    await expect(check('a.crt', ours.intermediatePem)).rejects.toThrow(
      `ARES_CA_FILE ${directory}/a.crt holds the intermediate (Ares Intermediate CA) but not the root above it`,
    )
    await expect(check('b.crt', ours.rootPem)).rejects.toThrow('holds the root (Ares Root CA) but no intermediate')
    await expect(check('c.crt', leaf.chainPem)).rejects.toThrow('holds api.service.ares4.internal, which is not a CA')
    await expect(check('d.crt', ours.intermediatePem + theirs.rootPem)).rejects.toThrow('no such CA')
    await expect(check('e.crt', 'hello')).rejects.toThrow('holds no certificate')
    await expect(check('f.crt', ours.caPem + leaf.keyPem)).rejects.toThrow('holds a private key')
    await expect(loadCaFile(directory)).rejects.toThrow('is a directory')
  })

  it('is waited for, with one line that names it, and then missed with a clear word', async () => {
    const late = join(directory, 'late.crt')
    const told: string[] = []
    const logger = { info: (message: string) => void told.push(message) }
    const waiting = loadCaFile(late, { limitMs: 10_000, logger })
    setTimeout(() => writeFileSync(late, ours.caPem), 300)
    await expect(waiting).resolves.toBe(ours.caPem)
    expect(told).toEqual([`waiting for ${late}`])

    await expect(waitForFile(join(directory, 'never'), { limitMs: 300, variable: 'ARES_CA_FILE' })).rejects.toThrow(
      /ARES_CA_FILE .*never is still missing after 0 s. The bootstrap of Vault writes it/,
    )
  })
})
