import { randomBytes } from 'node:crypto'
import type { StateFolder } from './state-folder'

export interface Login {
  readonly email: string
  readonly password: string
}

const FILE = 'first-login.json'

/** Who logs in first: made once, kept where nobody else can read it (0600). */
export function firstLogin(state: StateFolder): Login {
  const known = state.readJson<Login>(FILE)
  if (known) return known
  const login = { email: 'admin@ares4.internal', password: randomBytes(15).toString('base64url') }
  state.writeJson(FILE, login)
  return login
}

export interface Secrets {
  /** Of the Erlang node, when a real EMQX is the broker. */
  readonly cookie: string
  /** Instance numbers of the listeners: eight hexadecimal digits each, the same after every start. */
  readonly listeners: readonly string[]
}

/** What else is made once and must stay the same. */
export function secretsOf(state: StateFolder): Secrets {
  const known = state.readJson<Secrets>('secrets.json')
  if (known) return known
  const secrets = {
    cookie: `ares-${randomBytes(24).toString('hex')}`, // plain letters: EMQX reads its variables as HOCON
    listeners: [randomBytes(4).toString('hex'), randomBytes(4).toString('hex')],
  }
  state.writeJson('secrets.json', secrets)
  return secrets
}
