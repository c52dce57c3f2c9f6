/** What a broker in a test has of its own. */
export interface TestBrokerParts {
  /** Files of the certs volume: CA bundle, the broker's chain and its key. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly apiKeysFile: string
  readonly hookPort: number
  /** Name in the certificate of the webhooks' server. */
  readonly hookName: string
}

/** The variables with which the emqx.conf of the repository runs on this machine: on loopback and free ports. */
export function testEnvironment({ files, apiKeysFile, hookPort, hookName }: TestBrokerParts): Record<string, string> {
  const env: Record<string, string> = {
    EMQX_DASHBOARD__LISTENERS__HTTP__BIND: '127.0.0.1:0',
    EMQX_API_KEY__BOOTSTRAP_FILE: apiKeysFile,
    EMQX_AUTHENTICATION__1__URL: `https://127.0.0.1:${hookPort}/mqtt/authn`,
    EMQX_AUTHORIZATION__SOURCES__1__URL: `https://127.0.0.1:${hookPort}/mqtt/authz`,
  }
  for (const listener of ['SSL__DEVICES', 'SSL__SERVICES', 'WSS__USERS']) {
    env[`EMQX_LISTENERS__${listener}__BIND`] = '127.0.0.1:0'
    env[`EMQX_LISTENERS__${listener}__SSL_OPTIONS__CERTFILE`] = files.cert
    env[`EMQX_LISTENERS__${listener}__SSL_OPTIONS__KEYFILE`] = files.key
    if (listener !== 'WSS__USERS') env[`EMQX_LISTENERS__${listener}__SSL_OPTIONS__CACERTFILE`] = files.ca
  }
  for (const hook of ['AUTHENTICATION__1', 'AUTHORIZATION__SOURCES__1']) {
    env[`EMQX_${hook}__SSL__CACERTFILE`] = files.ca
    env[`EMQX_${hook}__SSL__CERTFILE`] = files.cert
    env[`EMQX_${hook}__SSL__KEYFILE`] = files.key
    env[`EMQX_${hook}__SSL__SERVER_NAME_INDICATION`] = hookName
  }
  return env
}
