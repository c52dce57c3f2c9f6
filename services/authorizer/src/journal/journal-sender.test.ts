import { createGrpcClient, createLogger, DomainError } from '@ares/chassis'
import { TestAuthority, TestIdentity, until } from '@ares/chassis/testing'
import { AdmissionAction, AdmissionResult, AdmissionServiceClient } from '@ares/proto/directory/v1/admission'
import { TestApi } from '../testing/test-api'
import { AdmissionJournal } from './admission-journal'
import { JournalSender } from './journal-sender'

let ca: TestAuthority
let api: TestApi
let client: AdmissionServiceClient
let journal: AdmissionJournal
let sender: JournalSender
let results: string[]

beforeAll(async () => {
  ca = await TestAuthority.create()
})

beforeEach(async () => {
  api = await TestApi.start(new TestIdentity(await ca.leaf('api.service.ares4.internal')), () => {})
  client = createGrpcClient({
    client: AdmissionServiceClient,
    address: `127.0.0.1:${api.port}`,
    identity: new TestIdentity(await ca.leaf('authorizer.service.ares4.internal')),
    serverName: 'api.service.ares4.internal',
  })
  journal = new AdmissionJournal()
  results = []
  sender = new JournalSender({
    journal,
    api: client,
    logger: createLogger({ service: 'test', level: 'silent' }),
    everyMs: 20,
    onSent: (lines, result) => results.push(`${lines} ${result}`),
  })
})

afterEach(async () => {
  await sender.stop(100)
  client.close()
  await api.stop()
})

const note = (topic: string) =>
  journal.note(
    'subscribe',
    { result: 'deny', reason: 'no_rule', className: 'device', subjectId: 'd1', serial: '0a0b' },
    { clientId: 'd1', peer: '10.0.0.1', topic },
  )

it('brings what was decided to api', async () => {
  sender.start()
  note('a')
  note('a')
  await until(() => api.admissions.length > 0, 'the batch')
  expect(api.admissions).toEqual([
    {
      at: expect.any(Date),
      count: 2,
      action: AdmissionAction.ADMISSION_ACTION_SUBSCRIBE,
      result: AdmissionResult.ADMISSION_RESULT_DENY,
      reason: 'no_rule',
      rule: '',
      className: 'device',
      subjectId: 'd1',
      clientId: 'd1',
      certificateSerial: Buffer.from('0a0b', 'hex'),
      peerAddress: '10.0.0.1',
      zone: '',
      topic: 'a',
    },
  ])
})

it('sends more than a batch without a pause, each line once', async () => {
  for (let i = 0; i < 1_100; i++) note(`t${i}`)
  sender.start()
  await until(() => api.admissions.length >= 1_100, 'all lines')
  expect(api.batches.map(({ admissions }) => admissions.length)).toEqual([250, 250, 250, 250, 100])
  expect(new Set(api.admissions.map(({ topic }) => topic)).size).toBe(1_100)
})

it('sends a batch that failed again under the same id, and what came meanwhile after it', async () => {
  api.breakAudit(new DomainError('unavailable', 'database_away', 'PostgreSQL cannot be reached.'))
  note('a')
  sender.start()
  await until(() => results.includes('1 failed'), 'a failure')
  note('b')
  api.breakAudit(undefined)
  await until(() => results.filter((result) => result === '1 stored').length === 2, 'both')
  const [failed, ...taken] = [...new Map(api.batches.map((batch) => [batch.batchId, batch])).values()]
  expect([failed, ...taken].map((batch) => batch?.admissions.map(({ topic }) => topic))).toEqual([['a'], ['b']])
})

it('drops what api calls wrong, so that the rest is not held up', async () => {
  api.breakAudit(new DomainError('invalid', 'invalid_admissions', 'meant to fail'))
  note('a')
  sender.start()
  await until(() => results.includes('1 dropped'), 'the batch to be dropped')
  api.breakAudit(undefined)
  note('b')
  await until(() => results.includes('1 stored'), 'the next one')
})

it('sends what waits before it stops', async () => {
  note('a')
  await sender.stop()
  expect(api.admissions.map(({ topic }) => topic)).toEqual(['a'])
})
