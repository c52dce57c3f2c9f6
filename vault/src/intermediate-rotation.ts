import { X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { commonNameOf, serialOf, type VaultClient } from '@ares/chassis'
import { loginForBootstrap } from './bootstrap-credential'
import { CertsVolume } from './certs-volume'
import { intermediateCommonName, issuerPem, makeIntermediate, readCertificateAuthorities } from './pki'
import { ensurePolicy } from './policies'
import { Setup, textOf } from './setup'

/**
 * Replaces the intermediate CA while everything runs. Three phases, each a command, each may be run again or cut off:
 *
 *   ONE ──add──▶ BOTH TRUSTED ──switch──▶ NEW ISSUES ──retire──▶ OLD STOPPED ──no leaf of it lives──▶ ONE
 *
 * - `add` makes the next intermediate and puts it into the CA bundle beside the old one. Services take up a changed bundle
 *   within seconds, EMQX within two minutes.
 * - `switch` makes it the one that issues. Leaves move over as they are renewed: the broker's within a minute (by the
 *   agent), services' within a day, devices' within their 30 days.
 * - `retire` stops the old one for good. When no leaf of it lives it is revoked at the root and removed, from Vault and from
 *   the bundle; until then the phase says what it waits for.
 *
 * Which is the old one and which the new is read off the number in their names, so nothing is remembered between phases.
 */
export const ROTATION_PHASES = ['add', 'switch', 'retire'] as const
export type RotationPhase = (typeof ROTATION_PHASES)[number]

export interface RotationOptions {
  readonly address: string
  /** CA of the Vault server's own certificate. */
  readonly caPem?: string
  /** See VaultKeys: a rotation needs the bootstrap credential. */
  readonly keyFile: string
  readonly certsDir: string
  /** How long the bundle must have been there before the switch; default 3 min. */
  readonly settleMs?: number
  /** When a leaf counts as ended; default now. */
  readonly at?: Date
  readonly logger?: {
    info(message: string, fields?: object): void
    warn(message: string, fields?: object): void
  }
}

export interface RotationResult {
  /** What was changed; empty when the phase had been carried out already. */
  readonly changes: readonly string[]
  /** What keeps `retire` from being finished. */
  readonly waitsFor?: string
}

/** A phase that cannot be carried out yet; the message says what is missing and what to do. */
export class RotationRefused extends Error {
  override readonly name = 'RotationRefused'
}

/** @throws RotationRefused, VaultError */
export async function rotateIntermediate(phase: RotationPhase, options: RotationOptions): Promise<RotationResult> {
  const vault = await loginForBootstrap(options, options.keyFile)
  try {
    const setup = new Setup(vault, {
      change: (change) => options.logger?.info('changed', { change }),
      warning: (warning) => options.logger?.warn('Vault ignored something', { warning }),
    })
    // A store that an earlier version set up does not let anybody remove an issuer.
    await ensurePolicy(setup, 'bootstrap')
    const rotation = new Rotation(setup, new CertsVolume({ dir: options.certsDir }), {
      settleMs: SETTLE_MS,
      at: new Date(),
      ...options,
    })
    const waitsFor = await rotation[phase]()
    return { changes: setup.changes, ...(waitsFor === undefined ? {} : { waitsFor }) }
  } finally {
    await vault.revokeSelf().catch(() => {}) // it ends by itself within the hour
    vault.close()
  }
}

/** EMQX reads its files every two minutes. */
const SETTLE_MS = 180_000

interface Intermediate {
  readonly id: string
  readonly name: string
  readonly keyId: string
  readonly pem: string
  readonly certificate: X509Certificate
  /** As in its common name. */
  readonly number: number
  readonly mayIssue: boolean
}

class Rotation {
  private readonly vault: VaultClient

  constructor(
    private readonly setup: Setup,
    private readonly volume: CertsVolume,
    private readonly limits: { readonly settleMs: number; readonly at: Date },
  ) {
    this.vault = setup.vault
  }

  async add(): Promise<undefined> {
    const { current, next, old } = await this.read()
    const [last] = old
    if (last) {
      throw new RotationRefused(
        `${last.name} from the rotation before is still there, and ${current.name} has taken its place: finish that one first (rotate-intermediate retire)`,
      )
    }
    const number = current.number + 1
    const id =
      next?.id ??
      (await this.setup.change(`intermediate CA ${number}`, () =>
        makeIntermediate(this.vault, intermediateCommonName(number)),
      ))
    const name = `int-${next?.number ?? number}`
    if (next?.name !== name) {
      // A call of its own: Vault names only what it makes itself, and a run may have been cut off before it.
      await this.setup.change(`name of ${name}`, () => this.vault.write(`pki_int/issuer/${id}`, { issuer_name: name }))
    }
    await this.writeBundle()
  }

  async switch(): Promise<undefined> {
    const { current, next, old } = await this.read()
    if (!next) {
      if (old.length > 0) return // carried out before
      throw new RotationRefused(
        `there is no other intermediate than ${current.name}: rotate-intermediate add comes first`,
      )
    }
    const bundle = await this.volume.readCa()
    if (!bundle?.intermediatePems.includes(next.pem) || next.name === '') {
      throw new RotationRefused(
        `${this.volume.caFile} does not hold ${next.name || 'the new intermediate'} yet: run rotate-intermediate add again`,
      )
    }
    const ageMs = Date.now() - (await stat(this.volume.caFile)).mtimeMs
    if (ageMs < this.limits.settleMs) {
      const seconds = Math.ceil((this.limits.settleMs - ageMs) / 1_000)
      throw new RotationRefused(
        `the CA bundle is ${Math.round(ageMs / 1_000)} s old, and not everybody has read it yet: run rotate-intermediate switch again in ${seconds} s`,
      )
    }
    await this.setup.change(`${next.name} issues`, () =>
      this.vault.write('pki_int/config/issuers', { default: next.id }),
    )
  }

  /** @returns what it waits for */
  async retire(): Promise<string | undefined> {
    const { current, next, old } = await this.read()
    if (next) {
      throw new RotationRefused(
        `${next.name || 'the new intermediate'} does not issue yet, ${current.name} does: rotate-intermediate switch comes first`,
      )
    }
    for (const issuer of old) {
      if (issuer.mayIssue) await this.stop(issuer)
      const left = await this.livingLeaves(issuer)
      if (left) return left
      await this.remove(issuer)
    }
    // Also when there was nothing to remove: a run before may have been cut off here.
    await this.writeBundle()
    return undefined
  }

  private async stop({ id, name }: Intermediate): Promise<void> {
    // A write replaces the issuer whole, so its name goes with it.
    const body = { issuer_name: name, usage: 'read-only,crl-signing,ocsp-signing' }
    await this.setup.change(`${name} issues no more`, () => this.vault.write(`pki_int/issuer/${id}`, body))
  }

  private async remove({ id, name, keyId, certificate }: Intermediate): Promise<void> {
    // Whoever sends it along could still be believed by a peer that trusts the root and looks at the root's CRL alone.
    const serial_number = serialOf(certificate)
    await this.setup.change(`${name} revoked at the root`, () => this.vault.write('pki/revoke', { serial_number }))
    await this.setup.change(`${name} removed`, () => this.vault.delete(`pki_int/issuer/${id}`))
    await this.setup.change(`key of ${name} removed`, () => this.vault.delete(`pki_int/key/${keyId}`))
  }

  /**
   * Leaves that have not ended. Revoked ones count: the CRL that says so would go with their issuer.
   * @returns a sentence about them, undefined when there are none
   */
  private async livingLeaves(issuer: Intermediate): Promise<string | undefined> {
    const serials = await this.vault.list('pki_int/certs')
    const living: X509Certificate[] = []
    for (let at = 0; at < serials.length; at += READ_AT_ONCE) {
      const answers = await Promise.all(
        serials.slice(at, at + READ_AT_ONCE).map((serial) => this.vault.read(`pki_int/cert/${serial}`)),
      )
      for (const answer of answers) {
        if (!answer) continue // tidied away meanwhile
        const leaf = new X509Certificate(textOf(answer, 'certificate', 'pki_int/cert'))
        if (leaf.checkIssued(issuer.certificate) && new Date(leaf.validTo) > this.limits.at) living.push(leaf)
      }
    }
    if (living.length === 0) return undefined
    const counts = new Map<string, number>()
    for (const leaf of living) counts.set(classOf(leaf), (counts.get(classOf(leaf)) ?? 0) + 1)
    const kinds = [...counts].map(([kind, count]) => `${kind}: ${count}`).join(', ')
    const end = new Date(Math.max(...living.map((leaf) => Date.parse(leaf.validTo))))
    return `${living.length} certificates of ${issuer.name} have not ended yet (${kinds}), the last one does at ${end.toISOString()}; they stay accepted until then. Run rotate-intermediate retire again after that`
  }

  private async writeBundle(): Promise<void> {
    const { rootPem, intermediatePems } = await readCertificateAuthorities(this.vault)
    this.setup.record(await this.volume.writeCa(rootPem, intermediatePems))
  }

  private async read(): Promise<{ current: Intermediate; next?: Intermediate; old: readonly Intermediate[] }> {
    const issuers = await this.vault.list('pki_int/issuers')
    const all = (await Promise.all(issuers.map((id) => this.intermediate(id)))).filter(({ keyId }) => keyId !== '')
    const defaultId = (await this.vault.read('pki_int/config/issuers'))?.data.default
    const current = all.find(({ id }) => id === defaultId)
    if (!current) throw new RotationRefused('Vault has no intermediate CA that issues: run the bootstrap first')
    const newer = all.filter(({ number }) => number > current.number)
    const old = all.filter(({ number, id }) => number <= current.number && id !== current.id)
    // Two that are newer: a run was cut off, or two ran at once. The last one counts, the other goes when it is retired.
    const [next] = newer.sort((a, b) => b.number - a.number)
    return { current, old, ...(next ? { next } : {}) }
  }

  private async intermediate(id: string): Promise<Intermediate> {
    const data = (await this.vault.read(`pki_int/issuer/${id}`))?.data ?? {}
    const pem = await issuerPem(this.vault, 'pki_int', id)
    const certificate = new X509Certificate(pem)
    return {
      id,
      pem,
      certificate,
      name: String(data.issuer_name ?? ''),
      keyId: String(data.key_id ?? ''),
      number: Number(/(\d+)$/.exec(commonNameOf(certificate) ?? '')?.[1] ?? 0),
      mayIssue: String(data.usage ?? '').includes('issuing-certificates'),
    }
  }
}

const READ_AT_ONCE = 16

function classOf(leaf: X509Certificate): string {
  const name = commonNameOf(leaf) ?? ''
  if (name.endsWith('.device.ares4.internal')) return 'devices'
  if (name.endsWith('.service.ares4.internal')) return 'services'
  return name === 'broker.ares4.internal' ? 'broker' : 'others'
}
