/**
 * Arrays as PostgreSQL's binary format has them (array_recv): nothing is escaped here and nothing has to be found again
 * there. `pg` sends a Buffer as it is; the statement must name the type (`$1::int4[]`).
 */

/** For `int4[]`. */
export function intArray(values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + values.length * 8)
  let at = writeHeader(bytes, OID.int4, values.length)
  for (const value of values) {
    at = bytes.writeInt32BE(4, at)
    at = bytes.writeInt32BE(value, at)
  }
  return bytes
}

/** For `float8[]`. */
export function doubleArray(values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + values.length * 12)
  let at = writeHeader(bytes, OID.float8, values.length)
  for (const value of values) {
    at = bytes.writeInt32BE(8, at)
    at = bytes.writeDoubleBE(value, at)
  }
  return bytes
}

/** For `jsonb[]`. @param values as JSON texts */
export function jsonbArray(values: readonly string[]): Buffer {
  let size = HEADER_BYTES
  for (const value of values) size += 5 + Buffer.byteLength(value)
  const bytes = Buffer.allocUnsafe(size)
  let at = writeHeader(bytes, OID.jsonb, values.length)
  for (const value of values) {
    const length = bytes.write(value, at + 5)
    at = bytes.writeInt32BE(length + 1, at)
    bytes[at] = JSONB_VERSION
    at += 1 + length
  }
  return bytes
}

/** Of pg_type; they are the same in every PostgreSQL. */
const OID = { int4: 23, float8: 701, jsonb: 3802 } as const

const JSONB_VERSION = 1
const HEADER_BYTES = 20

/** One dimension, no nulls, counted from 1. */
function writeHeader(bytes: Buffer, oid: number, length: number): number {
  let at = 0
  for (const field of [1, 0, oid, length, 1]) at = bytes.writeInt32BE(field, at)
  return at
}
