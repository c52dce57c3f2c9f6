import { join } from 'node:path'
import type { Ports } from './ports'
import { REPOSITORY } from './repository'
import type { StateFolder } from './state-folder'

/**
 * How a broker on this machine differs from emqx/emqx.conf, said the way EMQX takes overrides: the file is named by
 * EMQX_CONF and stays as it is, every difference is a variable. The embedded broker reads the same.
 */
export function brokerEnvironment(state: StateFolder, ports: Ports, cookie: string): Record<string, string> {
  const ca = state.at('certs/ca/full_chain_ca.crt')
  const certificate = state.at('certs/emqx/emqx.crt')
  const key = state.at('certs/emqx/emqx.key')
  const identity = { CERTFILE: certificate, KEYFILE: key }
  const webhook = (name: string, path: string) => ({
    [`${name}__URL`]: `https://127.0.0.1:${ports.authorizerWebhook}${path}`,
    ...under(`${name}__SSL`, {
      CACERTFILE: ca,
      ...identity,
      SERVER_NAME_INDICATION: 'authorizer.service.ares4.internal',
    }),
  })
  return {
    EMQX_CONF: join(REPOSITORY, 'emqx/emqx.conf'),
    EMQX_NODE__DATA_DIR: state.brokerData,
    EMQX_NODE__COOKIE: cookie,
    EMQX_LISTENERS__SSL__DEVICES__BIND: `0.0.0.0:${ports.mqtt}`,
    ...under('EMQX_LISTENERS__SSL__DEVICES__SSL_OPTIONS', { CACERTFILE: ca, ...identity }),
    EMQX_LISTENERS__SSL__SERVICES__BIND: `127.0.0.1:${ports.mqttServices}`,
    ...under('EMQX_LISTENERS__SSL__SERVICES__SSL_OPTIONS', { CACERTFILE: ca, ...identity }),
    EMQX_LISTENERS__WSS__USERS__BIND: `0.0.0.0:${ports.wss}`,
    ...under('EMQX_LISTENERS__WSS__USERS__SSL_OPTIONS', identity),
    ...webhook('EMQX_AUTHENTICATION__1', '/mqtt/authn'),
    ...webhook('EMQX_AUTHORIZATION__SOURCES__1', '/mqtt/authz'),
    EMQX_API_KEY__BOOTSTRAP_FILE: state.emqxKeys,
    EMQX_DASHBOARD__LISTENERS__HTTP__BIND: `127.0.0.1:${ports.brokerManagement}`,
  }
}

function under(prefix: string, values: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${prefix}__${name}`, value]))
}
