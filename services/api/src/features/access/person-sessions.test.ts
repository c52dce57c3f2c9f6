import { createLogger } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { addMember, furnish, startTestApi, type TestApi, type TestPerson } from '../../testing/api'
import { PersonChangeStore } from './person-changes.store'
import { PersonSessions } from './person-sessions'

let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let member: TestPerson
let sessions: PersonSessions
let steps: string[]
let reached: boolean
let brokerAway: boolean

beforeAll(async () => {
  api = await startTestApi()
  home = await furnish(api)
})
afterAll(() => api?.stop())

beforeEach(async () => {
  steps = []
  reached = true
  brokerAway = false
  member = await addMember(api, home.organization.id, 'viewer')
  sessions = newWorker()
  await sessions.start(50)
})
afterEach(() => sessions.stop())

const newWorker = () =>
  new PersonSessions({
    changes: new PersonChangeStore(api.context.database.pool),
    notifications: api.context.notifications,
    logger: createLogger({ service: 'test', level: 'silent' }),
    directory: {
      reached: async () => {
        steps.push(reached ? 'reached' : 'not reached')
        return reached
      },
    },
    broker: {
      clientsOf: async (email) => {
        if (brokerAway) throw new Error('away')
        return [email, `${email}/phone`]
      },
      kick: async (clientId) => void steps.push(`kick ${clientId}`),
    },
  })

const withdraw = () =>
  api.call('delete', `/organizations/${home.organization.id}/members/${member.id}`, { token: home.owner.token })

it('ends the sessions of who is no member any more, when the authorizers know', async () => {
  expect((await withdraw()).status).toBe(204)
  await until(() => steps.includes(`kick ${member.email}/phone`))
  expect(steps).toEqual(['reached', `kick ${member.email}`, `kick ${member.email}/phone`])
})

it('waits for the authorizers: who is kicked before they know is back with the old rights', async () => {
  reached = false
  await withdraw()
  await until(() => steps.length >= 2)
  expect(new Set(steps)).toEqual(new Set(['not reached']))
  reached = true
  await until(() => steps.includes(`kick ${member.email}`))
})

it('goes on after a restart, and after a time without the broker', async () => {
  brokerAway = true
  await withdraw()
  await until(() => steps.length >= 2)
  await sessions.stop()
  brokerAway = false
  sessions = newWorker()
  await sessions.start(50)
  await until(() => steps.includes(`kick ${member.email}`))
})

it('does each change once', async () => {
  await withdraw()
  await until(() => steps.includes(`kick ${member.email}/phone`))
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(steps.filter((step) => step === `kick ${member.email}`)).toHaveLength(1)
})
