import { Counter, Gauge, type Registry } from 'prom-client'

/** The numbers about a service's dealings with Vault and its certificate. */
export function identityMetrics(registry: Registry) {
  const registers = [registry]
  return {
    certificateEnd: new Gauge({
      name: 'ares_certificate_end_timestamp_seconds',
      help: 'When the certificate in use ends, in seconds since 1970',
      registers,
    }),
    certificateRenewals: new Counter({
      name: 'ares_certificate_renewals_total',
      help: 'Certificates asked for, the first one included',
      labelNames: ['result'] as const,
      registers,
    }),
    logins: new Counter({
      name: 'ares_vault_logins_total',
      help: 'Logins at Vault',
      labelNames: ['result'] as const,
      registers,
    }),
    tokenRenewals: new Counter({
      name: 'ares_vault_token_renewals_total',
      help: 'Renewals of the Vault token',
      labelNames: ['result'] as const,
      registers,
    }),
    credentialAlarms: new Counter({
      name: 'ares_vault_credential_alarms_total',
      help: 'Wrapped credentials that somebody else may have opened',
      registers,
    }),
    vaultErrors: new Counter({
      name: 'ares_vault_errors_total',
      help: 'Calls to Vault that failed, by reason',
      labelNames: ['code'] as const,
      registers,
    }),
  }
}

export type IdentityMetrics = ReturnType<typeof identityMetrics>
