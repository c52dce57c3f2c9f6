import { createLogger, createMetrics, createVaultClient } from '@ares/chassis'
import { openDatabase } from '../database'
import { AuditService } from '../features/audit/audit.service'
import { AuditStore } from '../features/audit/audit.store'
import { VaultPki } from '../features/certificates/pki.vault'
import { RevocationMetrics } from '../features/revocations/revocation-metrics'
import type { Step } from '../features/revocations/revocations'
import { RevocationService } from '../features/revocations/revocations.service'
import { RevocationStore } from '../features/revocations/revocations.store'

/** Where the process ends. Within a step: what it does is done, and nothing says so yet. */
export type Death =
  | { readonly when: 'after'; readonly step: Step | 'plan' }
  | { readonly when: 'within'; readonly step: 'vault' | 'authorizers' | 'kick' }

/** A process that revokes a certificate and kills itself, as kill -9 does, at the step that ARES_TEST_JOB names. */
async function main(): Promise<void> {
  const { databaseUrl, vault, deviceId, serial, userId, death } = JSON.parse(process.env.ARES_TEST_JOB ?? '{}')
  const database = openDatabase({ connectionString: databaseUrl })
  const store = new RevocationStore(database.prisma)
  const pki = new VaultPki(createVaultClient(vault), () => '')
  const dieIf = (when: Death['when'], step: Death['step']) => {
    if (when === death.when && step === death.step) process.kill(process.pid, 'SIGKILL')
  }
  const service = new RevocationService({
    store,
    pki: {
      async revoke(revoked) {
        await pki.revoke(revoked)
        dieIf('within', 'vault')
      },
    },
    directory: {
      async reached() {
        dieIf('within', 'authorizers')
        return true
      },
    },
    broker: {
      async kick() {
        dieIf('within', 'kick')
      },
    },
    audit: new AuditService(new AuditStore(database.prisma)),
    metrics: new RevocationMetrics(createMetrics('api'), () => store.unfinished()),
    logger: createLogger({ service: 'api', level: 'error' }),
    leaseMs: 1_000,
    afterStep: (step) => dieIf('after', step),
  })
  await service.revokeCertificate({ kind: 'user', id: userId }, deviceId, serial)
  process.exit(3)
}

void main()
