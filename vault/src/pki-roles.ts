const DAY_S = 86_400

/** Names of the broker inside; external ones come from the configuration. */
export const BROKER_COMMON_NAME = 'broker.ares4.internal'
export const BROKER_NAMES = [BROKER_COMMON_NAME, 'emqx', 'localhost'] as const
export const BROKER_ADDRESSES = ['127.0.0.1'] as const

/** The caller sends the name, the CSR's own is ignored; what is not named here Vault fills with defaults. */
const COMMON = {
  allow_glob_domains: false,
  allow_wildcard_certificates: false,
  allow_any_name: false,
  enforce_hostnames: true,
  cn_validations: ['hostname'],
  client_flag: true,
  key_usage: ['DigitalSignature'],
  use_csr_common_name: false,
  use_csr_sans: false,
  require_cn: true,
  no_store: false,
  // A clock that is ten minutes slow must not refuse a fresh certificate. (The default is 30 s.)
  not_before_duration: 660,
} as const

/**
 * One role per class of certificate in `pki_int`. A role does not bound everything: `not_after` walks past its max_ttl
 * (the policies do not let it through), and for `device` Vault also signs dotted, upper-case and non-ASCII ids
 * (api's own check).
 * @param brokerNames further DNS names of the broker
 */
export const pkiRoles = (brokerNames: readonly string[]) => ({
  broker: {
    ...COMMON,
    allowed_domains: [...new Set([...BROKER_NAMES, ...brokerNames])],
    allow_subdomains: false,
    allow_bare_domains: true,
    allow_localhost: true,
    allow_ip_sans: true,
    // Also as a client: EMQX shows this certificate to the authorizer.
    server_flag: true,
    key_type: 'ec',
    key_bits: 256,
    ttl: 30 * DAY_S,
    max_ttl: 30 * DAY_S,
  },
  service: {
    ...COMMON,
    // The policy of each service narrows this to its own name.
    allowed_domains: ['service.ares4.internal', 'localhost', 'api', 'listener', 'authorizer'],
    allow_subdomains: true,
    allow_bare_domains: true,
    allow_localhost: true,
    allow_ip_sans: true,
    server_flag: true,
    key_type: 'ec',
    key_bits: 256,
    ttl: DAY_S,
    max_ttl: DAY_S,
  },
  device: {
    ...COMMON,
    allowed_domains: ['device.ares4.internal'],
    allow_subdomains: true,
    allow_bare_domains: false,
    allow_localhost: false,
    allow_ip_sans: false,
    server_flag: false,
    key_type: 'any',
    ttl: 30 * DAY_S,
    max_ttl: 30 * DAY_S,
  },
})
