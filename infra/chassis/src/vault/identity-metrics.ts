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
    vaultState: new Gauge({
      name: 'ares_vault_state',
      help: 'How Vault was found at the last look: 1 for the state that holds',
      labelNames: ['state'] as const,
      registers,
    }),
    tokenHeld: new Gauge({
      name: 'ares_vault_token_held',
      help: '1 while there is a Vault token, 0 when it has run out, was revoked, or none could be had',
      registers,
    }),
    clockSkew: new Gauge({
      name: 'ares_vault_clock_skew_seconds',
      help: 'How far the clock here is ahead of the one of Vault',
      registers,
    }),
    loginRefusals: new Counter({
      name: 'ares_vault_login_refusals_total',
      help: 'Logins that came to nothing, by reason: no_fresh_credential, credential_alarm, or the code of the Vault error (rejected: the secret id is used up, destroyed or expired)',
      labelNames: ['reason'] as const,
      registers,
    }),
    bundleChanges: new Counter({
      name: 'ares_ca_bundle_changes_total',
      help: 'Changes of the CA bundle file that were met, by whether they could be taken up',
      labelNames: ['result'] as const,
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
