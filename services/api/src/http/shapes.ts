import { DomainError } from '@ares/chassis'
import { z } from 'zod'

/** Shapes that the rooms share. */

/** Id made by api: a UUID in lower case. */
export const id = () => z.uuid().meta({ example: '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11' })

/** A moment: Date inside, ISO 8601 with milliseconds outside. For answers. */
export const instant = () => z.date().meta({ type: 'string', format: 'date-time', example: '2025-12-08T09:00:00.000Z' })

/** A moment that a caller gives: ISO 8601 with an offset or Z. */
export const givenInstant = () =>
  z.iso
    .datetime({ offset: true })
    .transform((text) => new Date(text))
    .meta({ type: 'string', format: 'date-time', example: '2025-12-08T09:00:00.000Z' })

/** A name that people give: one line, no blanks around it. */
export const label = (maximum = 128) =>
  z
    .string()
    .trim()
    .min(1)
    .max(maximum)
    // Not as a regex: its flag would stand in the OpenAPI document as a part of the pattern.
    .refine((text) => !/\p{Cc}/u.test(text), 'must not contain control characters')

/** A page of a list, oldest cursor style: `nextCursor` is null on the last page. */
export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({
    items: z.array(item),
    nextCursor: z.string().nullable().meta({ description: 'Give it as `cursor` for the next page; null: the end.' }),
  })

/** Query parameters of every list. */
export const pageQuery = (defaultLimit = 50, maximum = 500) =>
  z.object({
    limit: z.coerce.number().int().min(1).max(maximum).default(defaultLimit),
    cursor: z.string().max(1_024).optional().meta({ description: '`nextCursor` of the page before.' }),
  })

export interface Page<Item> {
  readonly items: Item[]
  readonly nextCursor: string | null
}

/** Cuts `limit + 1` fetched rows to a page; the cursor is made from the last row that is shown. */
export function pageFrom<Item>(rows: readonly Item[], limit: number, keyOf: (row: Item) => unknown): Page<Item> {
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return { items, nextCursor: rows.length > limit && last !== undefined ? encodeCursor(keyOf(last)) : null }
}

/** Callers must not read anything into a cursor. */
export const encodeCursor = (key: unknown): string => Buffer.from(JSON.stringify(key)).toString('base64url')

/** @throws DomainError `invalid_cursor` */
export function decodeCursor<Schema extends z.ZodType>(cursor: string | undefined, schema: Schema) {
  if (cursor === undefined) return undefined
  try {
    return schema.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')))
  } catch {
    throw new DomainError('invalid', 'invalid_cursor', 'The cursor is not one of ours. Begin again without it.')
  }
}

export type JsonValue = string | number | boolean | null | JsonValue[] | { [name: string]: JsonValue }

/** Any JSON. What comes out of a parser is JSON already, and z.json() refers to itself, which the OpenAPI generator
 *  follows for ever. */
export const json = () => z.unknown() as z.ZodType<JsonValue, JsonValue>
