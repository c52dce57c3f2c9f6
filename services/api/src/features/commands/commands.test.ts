import { randomUUID } from 'node:crypto'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { type CommandResponse, type PublishRequest, ResponseStatus } from '@ares/proto/commands/v1/commands'
import { type Database, openDatabase } from '../../database'
import type { UserActor } from '../../http/route'
import { createTestDevice, type TestDevice } from '../../testing/fleet'
import { AuditService } from '../audit/audit.service'
import { AuditStore } from '../audit/audit.store'
import { CommandDelivery, type Publisher } from './command-delivery'
import { isStorableJson, newCommand } from './commands.schema'
import { CommandService } from './commands.service'
import { CommandStore } from './commands.store'

const {
  RESPONSE_STATUS_PROGRESS: PROGRESS,
  RESPONSE_STATUS_SUCCEEDED: SUCCEEDED,
  RESPONSE_STATUS_FAILED: FAILED,
} = ResponseStatus
const UNAVAILABLE = 14
const actor: UserActor = { kind: 'user', id: randomUUID(), email: 'o@example.org', sessionId: 's' }

let testDatabase: TestDatabase
let database: Database
let device: TestDevice
let published: PublishRequest[]
let publisher: Publisher
let service: CommandService

beforeAll(async () => {
  testDatabase = await createTestDatabase()
  database = openDatabase({ connectionString: testDatabase.url })
  const store = new CommandStore(database.prisma, database.pool)
  const delivery = new CommandDelivery([(request) => publisher(request)])
  const logger = { warn() {} } as never
  service = new CommandService(store, delivery, new AuditService(new AuditStore(database.prisma)), {
    logger,
    settleMs: 0,
  })
})
afterAll(async () => {
  await service?.stop()
  await database?.close()
  await testDatabase?.drop()
})
beforeEach(async () => {
  device = await createTestDevice(database.pool)
  published = []
  publisher = async (request) => {
    published.push(request)
    return { taken: true }
  }
})

describe('a command', () => {
  it('is stored, audited and published at once', async () => {
    const command = await create({ arguments: { seconds: 10 } })
    expect(command).toMatchObject({ state: 'published', name: 'set_interval', arguments: { seconds: 10 } })
    expect(published).toEqual([
      {
        deviceId: device.deviceId,
        commandId: command.id,
        name: 'set_interval',
        argumentsJson: '{"seconds":10}',
        expiresAt: command.expiresAt,
      },
    ])
    const { rows } = await database.pool.query(`SELECT actor_id, action FROM audit WHERE subject_id = $1`, [
      device.deviceId,
    ])
    expect(rows).toEqual([{ actor_id: actor.id, action: 'command.created' }])
  })

  it('stays pending while the device is not connected, and goes out when it is', async () => {
    publisher = async () => ({ taken: false })
    const command = await create()
    expect(command.state).toBe('pending')
    await service.sweep()
    expect((await read(command.id)).state).toBe('pending')
    publisher = async () => ({ taken: true })
    await service.sweep()
    expect((await read(command.id)).state).toBe('published')
  })

  it('expires when nobody took it in time, and is not published then', async () => {
    publisher = async () => ({ taken: false })
    const command = await create()
    await endNow(command.id)
    publisher = async (request) => {
      published.push(request)
      return { taken: true }
    }
    await service.sweep()
    expect((await read(command.id)).state).toBe('expired')
    expect(published).toEqual([])
  })

  it('with the same Idempotency-Key is the same command, also when both come at once', async () => {
    const [first, second] = await Promise.all([create({}, 'key-1'), create({}, 'key-1')])
    const third = await create({}, 'key-1')
    expect(new Set([first.id, second.id, third.id]).size).toBe(1)
    expect(published).toHaveLength(1)
    await expect(create({ name: 'reboot' }, 'key-1')).rejects.toMatchObject({ code: 'idempotency_key_reused' })
  })

  it('to a device that is switched off is refused', async () => {
    await database.pool.query(`UPDATE devices SET state = 'disabled' WHERE id = $1`, [device.deviceId])
    await expect(create()).rejects.toMatchObject({ code: 'device_disabled' })
  })

  it('is listed, the newest first, page by page', async () => {
    const ids: string[] = []
    for (let i = 0; i < 3; i += 1) ids.unshift((await create()).id)
    const first = await service.list(device.deviceId, { limit: 2 })
    const second = await service.list(device.deviceId, { limit: 2, cursor: first.nextCursor! })
    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(ids)
    expect(second.nextCursor).toBeNull()
  })

  it('of another device is not found', async () => {
    const { id } = await create()
    const other = await createTestDevice(database.pool)
    await expect(service.get(other.deviceId, id)).rejects.toMatchObject({ code: 'command_not_found' })
  })
})

describe('responses', () => {
  it('move a command on until it has ended', async () => {
    const { id } = await create()
    expect(await service.recordResponses([response(id, PROGRESS)])).toBe(1)
    expect((await read(id)).state).toBe('progress')
    expect(await service.recordResponses([response(id, SUCCEEDED, '{"ok":true}')])).toBe(1)
    expect(await service.recordResponses([response(id, FAILED, '', 'late')])).toBe(0)
    expect(await read(id)).toMatchObject({ state: 'succeeded', result: { ok: true }, error: null })
  })

  it('of one call are folded: the first end stands', async () => {
    const { id } = await create()
    await service.recordResponses([response(id, PROGRESS), response(id, FAILED, '', 'no'), response(id, SUCCEEDED)])
    expect(await read(id)).toMatchObject({ state: 'failed', error: 'no' })
  })

  it('to unknown commands, and of other devices, change nothing', async () => {
    const { id } = await create()
    const foreign = { ...response(id, SUCCEEDED), deviceId: randomUUID() }
    expect(await service.recordResponses([foreign, response(randomUUID(), SUCCEEDED), response('x', SUCCEEDED)])).toBe(
      0,
    )
    expect((await read(id)).state).toBe('published')
  })

  it('with a result that cannot be stored do not stop the others', async () => {
    const commands = [await create(), await create(), await create(), await create()]
    const results = ['{"a":"\\u0000"}', '{{{', `${'['.repeat(7_000)}${']'.repeat(7_000)}`, '"fine"']
    const answers = commands.map(({ id }, i) => response(id, SUCCEEDED, results[i]))
    expect(await service.recordResponses(answers)).toBe(4)
    expect(await read(commands[3]!.id)).toMatchObject({ state: 'succeeded', result: 'fine' })
    expect(await read(commands[0]!.id)).toMatchObject({ state: 'succeeded', result: null })
  })
})

describe('delivery', () => {
  const failing =
    (code: number): Publisher =>
    async () => {
      throw Object.assign(new Error('no'), { code })
    }
  const request = {} as PublishRequest

  it('takes the next listener when one is away, and begins there the next time', async () => {
    let tried = 0
    const away: Publisher = (...args) => {
      tried += 1
      return failing(UNAVAILABLE)(...args)
    }
    const delivery = new CommandDelivery([away, async () => ({ taken: true })])
    expect([await delivery.deliver(request), await delivery.deliver(request)]).toEqual(['taken', 'taken'])
    expect(tried).toBe(1)
  })

  it('says so when no listener is there, and when the command is expired', async () => {
    expect(await new CommandDelivery([failing(UNAVAILABLE), failing(4)]).deliver(request)).toBe('no_listener')
    expect(await new CommandDelivery([failing(9)]).deliver(request)).toBe('expired')
    expect(await new CommandDelivery([]).deliver(request)).toBe('no_listener')
  })
})

it('NUL is found in JSON, and a backslash before u0000 is not taken for it', () => {
  expect(isStorableJson({ a: ['\u0000'] })).toBe(false)
  expect(isStorableJson({ '\u0000': 1 })).toBe(false)
  expect(isStorableJson('\\\u0000')).toBe(false)
  expect(isStorableJson('\\u0000')).toBe(true)
})

const create = (wanted: object = {}, key?: string) =>
  service.command(
    actor,
    device.organizationId,
    device.deviceId,
    newCommand.parse({ name: 'set_interval', ...wanted }),
    key,
  )

const read = (id: string) => service.get(device.deviceId, id)

const endNow = (id: string) =>
  database.pool.query(`UPDATE commands SET expires_at = now() - interval '1 s' WHERE id = $1`, [id])

const response = (commandId: string, status: ResponseStatus, resultJson = '', error = ''): CommandResponse => ({
  deviceId: device.deviceId,
  commandId,
  status,
  resultJson,
  error,
  receivedAt: new Date(),
})
