import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { SERVICE_NAMES } from '@ares/proto'
import type { Setup } from './setup'

/** Who logs in to Vault; each has the AppRole and the policy of its name. */
export const APPROLE_NAMES = [...SERVICE_NAMES, 'cert-agent', 'bootstrap'] as const
export type AppRoleName = (typeof APPROLE_NAMES)[number]

const HOUR_S = 3_600

/** Text of vault/policies/<name>.hcl; they stand beside src/ and dist/ alike. */
export const readPolicy = (name: AppRoleName): Promise<string> =>
  readFile(path.join(__dirname, '..', 'policies', `${name}.hcl`), 'utf8')

export async function ensurePolicy(setup: Setup, name: AppRoleName): Promise<void> {
  const wanted = await readPolicy(name)
  const at = `sys/policies/acl/${name}`
  const now = (await setup.vault.read(at))?.data.policy
  if (now !== wanted) await setup.change(`policy ${name}`, () => setup.vault.write(at, { policy: wanted }))
}

export const ensureAppRole = (setup: Setup, name: AppRoleName): Promise<void> =>
  setup.ensure(`auth/approle/role/${name}`, {
    token_policies: [name],
    token_no_default_policy: true,
    token_type: 'service',
    bind_secret_id: true,
    ...LIVES[name],
  })

/** A service's secret id is used once, and dies unused after an hour: the deliverer has a fresh one by then. */
const SERVICE = { token_period: HOUR_S, secret_id_num_uses: 1, secret_id_ttl: HOUR_S }

const LIVES: Readonly<Record<AppRoleName, Readonly<Record<string, number>>>> = {
  api: SERVICE,
  listener: SERVICE,
  authorizer: SERVICE,
  // Nobody delivers to the deliverer: its secret id must serve for every restart.
  'cert-agent': { token_period: HOUR_S, secret_id_num_uses: 0, secret_id_ttl: 0 },
  bootstrap: { token_ttl: HOUR_S, token_max_ttl: HOUR_S, secret_id_num_uses: 0, secret_id_ttl: 0 },
}
