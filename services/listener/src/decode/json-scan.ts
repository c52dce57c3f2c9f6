import { isUtf8 } from 'node:buffer'
import { MAX_DEPTH, Unreadable } from './decoder'

/**
 * Parses JSON that a stranger sent. JSON.parse keeps the last of two equal keys and says nothing, so one pass over the
 * text counts the members that were written (colons outside strings) and bounds the depth before anything is built; a
 * walk over the result counts the members that are there. Fewer than written means that a key came twice. Both passes
 * together cost less than JSON.parse itself (`json-scan.bench.ts`), where a parser in JavaScript costs many times as much.
 * @throws Unreadable malformed, too_deep, duplicate_key
 */
export function parseJson(payload: Buffer): unknown {
  if (!isUtf8(payload)) throw new Unreadable('malformed', 'the payload is not UTF-8')
  const written = countWritten(payload)
  let value: unknown
  try {
    value = JSON.parse(payload.toString('utf8'))
  } catch (error) {
    throw new Unreadable('malformed', `not valid JSON${positionIn(error)}`)
  }
  if (countMembers(value) < written) throw new Unreadable('duplicate_key', 'a key occurs twice in one object')
  return value
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

/**
 * Members that the text writes. Only meaningful for valid JSON; for anything else JSON.parse gives the answer. In UTF-8 no
 * other character has the byte of one of these, and bytes are read in half the time of characters.
 */
function countWritten(text: Buffer): number {
  let members = 0
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case QUOTE:
        at = endOfString(text, at)
        break
      case COLON:
        members++
        break
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (++depth > MAX_DEPTH) throw new Unreadable('too_deep', `nested deeper than ${MAX_DEPTH}`)
        break
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        depth--
        break
    }
  }
  return members
}

/** Position of the quote that ends the string, or the end of the text. */
function endOfString(text: Buffer, start: number): number {
  let at = start + 1
  for (; at < text.length; at++) {
    const byte = text[at]
    if (byte === QUOTE) return at
    if (byte === BACKSLASH) at++
  }
  return at
}

function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  let members = 0
  if (Array.isArray(value)) {
    for (const item of value) members += countMembers(item)
    return members
  }
  for (const key in value) {
    const member = (value as Record<string, unknown>)[key]
    members += typeof member === 'object' ? 1 + countMembers(member) : 1
  }
  return members
}

/** JSON.parse quotes the payload in its message; the position is all that may be told. */
function positionIn(error: unknown): string {
  const position = /position (\d+)/.exec(error instanceof Error ? error.message : '')
  return position ? ` at position ${position[1]}` : ''
}
