import type { Pool, PoolClient } from 'pg'
import type { PrismaTransaction } from '../../database'
import type { Prisma, PrismaClient } from '../../generated/prisma/client'
import type { Command } from './commands.schema'

export type CommandState = Command['state']

export interface CommandToWrite {
  readonly id: string
  readonly deviceId: string
  readonly name: string
  readonly arguments: Command['arguments']
  readonly requestedBy: string
  readonly idempotencyKey: string | null
  readonly expiresAt: Date
}

/** What a device answered, after several answers of one call were folded. */
export interface AnswerToWrite {
  readonly deviceId: string
  readonly commandId: string
  readonly state: 'progress' | 'succeeded' | 'failed'
  /** JSON text. */
  readonly result: string | null
  readonly error: string | null
  readonly respondedAt: Date
}

/** Keeps commands. A command that has ended does not change any more: every update says which states it starts from. */
export class CommandStore {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly pool: Pool,
  ) {}

  /** @param also runs in the same transaction  @throws P2002 when the idempotency key was used on the device */
  async create(command: CommandToWrite, also: (tx: PrismaTransaction) => Promise<void>): Promise<Command> {
    return this.prisma.$transaction(async (tx) => {
      const row = await tx.command.create({
        data: { ...command, arguments: command.arguments as Prisma.InputJsonObject },
      })
      await also(tx)
      return shown(row)
    })
  }

  async findByKey(deviceId: string, idempotencyKey: string): Promise<Command | undefined> {
    const row = await this.prisma.command.findUnique({
      where: { deviceId_idempotencyKey: { deviceId, idempotencyKey } },
    })
    return row ? shown(row) : undefined
  }

  async find(deviceId: string, id: string): Promise<Command | undefined> {
    const row = await this.prisma.command.findFirst({ where: { id, deviceId } })
    return row ? shown(row) : undefined
  }

  /** The newest first: ids begin with their time. */
  async list(deviceId: string, state: CommandState | undefined, limit: number, before?: string): Promise<Command[]> {
    const rows = await this.prisma.command.findMany({
      where: { deviceId, ...(state ? { state } : {}), ...(before ? { id: { lt: before } } : {}) },
      orderBy: { id: 'desc' },
      take: limit,
    })
    return rows.map(shown)
  }

  async deviceState(deviceId: string): Promise<'active' | 'disabled' | undefined> {
    return (await this.prisma.device.findUnique({ where: { id: deviceId }, select: { state: true } }))?.state
  }

  /** The broker has it. A device may have answered already: then its answer stands. */
  async markPublished(id: string): Promise<void> {
    await this.pool.query(MARK_PUBLISHED, [id])
  }

  /**
   * Hands the next pending command to `work` and holds its row meanwhile, so that no other replica takes it.
   * @param after id of the one before; the order is that of the ids
   * @param createdBefore younger ones are being delivered by who created them
   * @returns its id; undefined: there is none left
   */
  async withNextPending(
    after: string | undefined,
    createdBefore: Date,
    work: (command: Command) => Promise<'published' | 'pending'>,
  ): Promise<string | undefined> {
    const client = await this.pool.connect()
    let broken: Error | undefined
    try {
      await client.query('BEGIN')
      const id = await deliverNext(client, after, createdBefore, work)
      await client.query('COMMIT')
      return id
    } catch (error) {
      await client.query('ROLLBACK').catch((rollbackError: Error) => {
        broken = rollbackError
      })
      throw error
    } finally {
      client.release(broken)
    }
  }

  /** Ends what was not taken, and (a little later: an answer may be on its way) what was not answered in time. */
  async expire(now: Date, graceMs: number): Promise<number> {
    const { rowCount } = await this.pool.query(EXPIRE, [now, new Date(now.getTime() - graceMs)])
    return rowCount ?? 0
  }

  /** @returns how many commands have a new state or result */
  async recordAnswers(answers: readonly AnswerToWrite[]): Promise<number> {
    const { rowCount } = await this.pool.query(RECORD_ANSWERS, [
      answers.map((answer) => answer.commandId),
      answers.map((answer) => answer.deviceId),
      answers.map((answer) => answer.state),
      answers.map((answer) => answer.result),
      answers.map((answer) => answer.error),
      answers.map((answer) => answer.respondedAt),
    ])
    return rowCount ?? 0
  }
}

async function deliverNext(
  client: PoolClient,
  after: string | undefined,
  createdBefore: Date,
  work: (command: Command) => Promise<'published' | 'pending'>,
): Promise<string | undefined> {
  const { rows } = await client.query<Command>(NEXT_PENDING, [after ?? null, createdBefore])
  const [command] = rows
  if (!command) return undefined
  if ((await work(command)) === 'published') await client.query(MARK_PUBLISHED, [command.id])
  return command.id
}

const shown = (row: Prisma.CommandGetPayload<object>): Command => ({
  id: row.id,
  deviceId: row.deviceId,
  name: row.name,
  arguments: row.arguments as Command['arguments'],
  state: row.state,
  result: (row.result ?? null) as Command['result'],
  error: row.error,
  requestedBy: row.requestedBy,
  createdAt: row.createdAt,
  expiresAt: row.expiresAt,
  publishedAt: row.publishedAt,
  respondedAt: row.respondedAt,
})

const MARK_PUBLISHED = `
  UPDATE commands
     SET published_at = coalesce(published_at, now()), state = CASE WHEN state = 'pending' THEN 'published' ELSE state END
   WHERE id = $1 AND state <> 'expired'`

const NEXT_PENDING = `
  SELECT id, device_id AS "deviceId", name, arguments, state, result, error, requested_by AS "requestedBy",
         created_at AS "createdAt", expires_at AS "expiresAt", published_at AS "publishedAt", responded_at AS "respondedAt"
    FROM commands
   WHERE state = 'pending' AND expires_at > now() AND created_at < $2 AND ($1::uuid IS NULL OR id > $1)
   ORDER BY id
   LIMIT 1
     FOR NO KEY UPDATE SKIP LOCKED`

const EXPIRE = `
  UPDATE commands SET state = 'expired'
   WHERE state = 'pending' AND expires_at <= $1 OR state = 'published' AND expires_at <= $2`

// Locked in the order of the ids: two calls with the same commands cannot deadlock.
const RECORD_ANSWERS = `
  WITH given AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::command_state[], $4::jsonb[], $5::text[], $6::timestamptz[])
      AS a (id, device_id, state, result, error, responded_at)
  ), locked AS (
    SELECT c.id FROM commands c WHERE c.id IN (SELECT id FROM given) ORDER BY c.id FOR NO KEY UPDATE
  )
  UPDATE commands c
     SET state = given.state, result = given.result, error = given.error, responded_at = given.responded_at
    FROM given JOIN locked ON locked.id = given.id
   WHERE c.id = given.id AND c.device_id = given.device_id AND c.state IN ('pending', 'published', 'progress')`
