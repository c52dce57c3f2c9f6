import { createLogger, DomainError, type LeafSource } from '@ares/chassis'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import type { BrokerSessions } from '../broker/broker-sessions'
import type { ApiConfig } from '../config'
import { type ApiContext, createContext } from '../context'
import { dataRooms } from '../data-rooms'
import type { Pki } from '../features/certificates/pki'
import { LONGEST_DEVICE_LIFE_MS } from '../features/certificates/pki.vault'
import type { BrokerClients } from '../features/fleet/broker-findings'
import { hashPassword } from '../features/identity/password'
import type { DirectoryReach } from '../features/revocations/revocations'
import { fleetRooms } from '../fleet-rooms'
import { AccessControl } from '../http/access'
import { API_ROOT, httpApplication } from '../http/app'
import type { Route } from '../http/route'
import { startHttpServer } from '../http/server'
import { newId } from '../ids'
import { peopleRooms } from '../people-rooms'
import { revocationRooms } from '../revocation-rooms'

export interface TestApi {
  /** http://127.0.0.1:port */
  readonly origin: string
  readonly context: ApiContext
  readonly routes: readonly Route[]
  call(method: string, path: string, options?: CallOptions): Promise<TestAnswer>
  /** A new person who is logged in. */
  person(email?: string): Promise<TestPerson>
  stop(): Promise<void>
}

export interface CallOptions {
  readonly token?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface TestAnswer {
  readonly status: number
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers freely
  readonly body: any
  readonly headers: Headers
}

export interface TestPerson {
  readonly id: string
  readonly email: string
  readonly password: string
  readonly token: string
  readonly refreshToken: string
}

/** Every room with REST in front and a database of its own; no gRPC, and a PKI only if one is given. */
export async function startTestApi(
  options: {
    readonly pki?: Pki
    readonly broker?: BrokerSessions
    readonly directory?: DirectoryReach
    readonly clients?: BrokerClients
    /** For the fleet doctor. */
    readonly caPem?: () => string
    /** Migrated; default: one of its own in the PostgreSQL that all tests share. */
    readonly database?: TestDatabase
  } = {},
): Promise<TestApi> {
  const database = options.database ?? (await createTestDatabase())
  const logger = createLogger({ service: 'api', level: process.env.ARES_TEST_LOG ?? 'error' })
  const context = createContext(configFor(database.url), logger)
  const people = peopleRooms(context, options.pki ?? NO_PKI, {
    passwordCost: CHEAP,
    attemptsWrittenEveryMs: 100,
  })
  const data = dataRooms(context, NO_IDENTITY)
  const { pki = NO_PKI, broker = NO_BROKER, directory = NO_AUTHORIZERS } = options
  const revocation = revocationRooms(context, { pki, broker, directory })
  const { clients = NO_CLIENTS, caPem = () => '' } = options
  const fleet = fleetRooms(context, { broker: clients, caPem })
  await people.start()
  await data.start()
  await revocation.start()
  const routes = [...people.routes, ...data.routes, ...revocation.routes, ...fleet.routes]
  const access = new AccessControl(context.database.pool)
  const { authenticate } = people
  const app = httpApplication({ routes, authenticate, access, logger, metrics: context.metrics })
  const server = await startHttpServer({ host: '127.0.0.1', port: 0 }, app)
  const origin = `http://127.0.0.1:${server.port}`

  async function call(method: string, path: string, { token, body, headers = {} }: CallOptions = {}) {
    const answer = await fetch(`${origin}${API_ROOT}${path}`, {
      method: method.toUpperCase(),
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await answer.text()
    return { status: answer.status, headers: answer.headers, body: text === '' ? undefined : JSON.parse(text) }
  }

  return {
    origin,
    context,
    routes,
    call,
    async person(email = `${newId()}@example.org`) {
      const password = 'correct horse battery'
      const { prisma } = context.database
      const passwordHash = await hashPassword(password, CHEAP)
      await prisma.user.create({ data: { id: newId(), email, passwordHash } })
      const { body } = await call('post', '/sessions', { body: { email, password } })
      return { id: body.user.id, email, password, token: body.accessToken, refreshToken: body.refreshToken }
    },
    async stop() {
      await server.stop(1_000)
      context.stopping.abort()
      await revocation.stop()
      await data.stop()
      await people.stop()
      await context.database.close()
      await database.drop()
    },
  }
}

/** An owner with an organization, a blueprint with one component, and a device that has it. */
export async function furnish(api: TestApi) {
  const owner = await api.person()
  const post = async (path: string, body: unknown) => {
    const answer = await api.call('post', path, { token: owner.token, body })
    if (answer.status !== 201) throw new Error(`${path}: ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const organization = await post('/organizations', { name: 'Observatory' })
  const blueprint = await post(`/organizations/${organization.id}/blueprints`, { name: 'Weather station' })
  const component = await post(`/blueprints/${blueprint.id}/components`, {
    name: 'dht22',
    metrics: [
      { name: 'temperature', kind: 'number', unit: 'Cel', minimum: -40, maximum: 85 },
      { name: 'heater_on', kind: 'boolean' },
    ],
  })
  const device = await post(`/organizations/${organization.id}/devices`, { name: 'Roof', blueprintId: blueprint.id })
  const instance = await post(`/devices/${device.id}/components`, {
    name: 'dht22-1',
    supportedComponentId: component.id,
  })
  return { owner, organization, blueprint, component, device, instance }
}

/** Adds a member with a role to an organization. */
export async function addMember(api: TestApi, organizationId: string, role: 'viewer' | 'operator' | 'owner') {
  const person = await api.person()
  await api.context.database.prisma.membership.create({ data: { organizationId, userId: person.id, role } })
  return person
}

/** Passwords of tests need no protection. */
const CHEAP = { N: 1_024, r: 8, p: 1 }

const NO_IDENTITY: LeafSource = {
  current() {
    throw new Error('there is no identity in this test')
  },
  onRenewed: () => () => {},
}

const NO_PKI: Pki = {
  signDevice: () => Promise.reject(new DomainError('unavailable', 'pki_unavailable', 'There is no PKI in this test.')),
  revoke: () => Promise.reject(new DomainError('unavailable', 'pki_unavailable', 'There is no PKI in this test.')),
}

const NO_CLIENTS: BrokerClients = { call: async () => ({ status: 404, body: undefined }) }
const NO_BROKER: BrokerSessions = { kick: async () => {} }
const NO_AUTHORIZERS: DirectoryReach = { reached: async () => true }

function configFor(databaseUrl: string): ApiConfig {
  const bind = { host: '127.0.0.1', port: 0 }
  return {
    logLevel: 'error',
    opsBind: bind,
    httpBind: bind,
    grpcBind: bind,
    databaseUrl,
    vaultAddress: 'http://127.0.0.1:1',
    vaultCredentials: 'none',
    caFile: 'none',
    listenerAddresses: [],
    authorizerAddresses: [],
    deviceCertificateLifeMs: LONGEST_DEVICE_LIFE_MS,
    trustedProxies: 0,
  }
}
