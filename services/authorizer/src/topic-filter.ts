/**
 * Topic filters, and when one lies within another.
 *
 * A subscription is allowed by a rule when *every topic that it can match* is allowed by the rule. Matching the filter
 * as if it were a topic, as EMQX does, lets `dev/1/#` through a rule `dev/1/+`: the `+` takes the level `#` for a name.
 */

/** The levels of a filter or topic that is well formed. */
export type Levels = readonly string[]

/** [MQTT-4.7.3-3]: a topic is a UTF-8 string with a length of two bytes. */
const LONGEST_BYTES = 65_535

/** Nothing here needs more; EMQX has a limit of its own (`max_topic_levels`). */
const MOST_LEVELS = 128

/**
 * Whether every topic that `filter` can match is matched by `rule`.
 * @param rule a topic filter; what is not well formed allows nothing
 * @param filter what a client wants to subscribe to, with or without `$share/…`, or a topic to publish on
 */
export function allows(rule: string, filter: string): boolean {
  const ruleLevels = levelsOf(rule)
  const filterLevels = subscribedLevels(filter)
  return ruleLevels !== undefined && filterLevels !== undefined && contains(ruleLevels, filterLevels)
}

/** What stands in a template for the id of a device. */
export const DEVICE_ID = '{deviceId}'

/** The same for levels that are known to be well formed. @param deviceId what `{deviceId}` in the rule stands for */
export function contains(rule: Levels, filter: Levels, deviceId = DEVICE_ID): boolean {
  const wanted = spelledOut(filter)
  // [MQTT-4.7.2-1]: a wildcard in the first level does not match `$SYS/…`.
  if (wanted[0]?.startsWith('$') && (rule[0] === '#' || rule[0] === '+')) return false
  for (let i = 0; i < rule.length; i++) {
    const allowed = rule[i] === DEVICE_ID ? deviceId : rule[i]
    if (allowed === '#') return true
    const level = wanted[i]
    if (level === undefined || level === '#') return false
    if (allowed !== '+' && allowed !== level) return false
  }
  return wanted.length === rule.length
}

/** Levels of what a client subscribes to, without the prefixes that only say how it wants the messages.
 *  @returns undefined for what is not well formed */
export function subscribedLevels(text: string): Levels | undefined {
  if (text.length > LONGEST_BYTES) return undefined
  return levelsOf(withoutPrefix(text))
}

/** Levels of a topic to publish on, without `$delayed/<seconds>/`. @returns undefined for what is not a topic name */
export function publishedLevels(text: string): Levels | undefined {
  if (text.length > LONGEST_BYTES) return undefined
  const levels = levelsOf(text.replace(DELAYED, ''))
  return levels?.some((level) => level === '+' || level === '#') ? undefined : levels
}

/** Levels of a plain filter; undefined when it is none: empty, too long, too deep, a misplaced wildcard, a NUL. */
export function levelsOf(text: string): Levels | undefined {
  if (text === '' || text.length > LONGEST_BYTES) return undefined
  if (text.length > LONGEST_BYTES / 3 && Buffer.byteLength(text) > LONGEST_BYTES) return undefined
  if ((!PLAIN.test(text) && NOT_A_CHARACTER.test(text)) || deeperThan(MOST_LEVELS, text)) return undefined
  const levels = text.split('/')
  const last = levels.length - 1
  for (let i = 0; i <= last; i++) {
    const level = levels[i] ?? ''
    if (level.length > 1 && (level.includes('+') || level.includes('#'))) return undefined
    if (level === '#' && i !== last) return undefined
  }
  return levels
}

/** No topic is empty [MQTT-4.7.3-1], so `#` is the same as `+/#` and `/#` the same as `/+/#`: the longer form is compared,
 *  or else the rule `+/#` would not contain `#`. */
function spelledOut(filter: Levels): Levels {
  if (filter.length === 1 && filter[0] === '#') return ['+', '#']
  if (filter.length === 2 && filter[0] === '' && filter[1] === '#') return ['', '+', '#']
  return filter
}

/** NUL is forbidden [MQTT-1.5.4-2]; half a surrogate pair has no UTF-8 form. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: NUL is what is looked for
const NOT_A_CHARACTER = /\u0000|\p{Surrogate}/u

/** What nearly every topic is made of, and ten times as quickly seen. */
const PLAIN = /^[ -~]*$/

const DELAYED = /^\$delayed\/\d{1,7}\//
const PREFIX = /^(?:\$share\/[^/+#]+|\$queue|\$exclusive)\//

/** Only one prefix is taken off, as EMQX does: what is left of a second one is a `$…` topic that no rule has. */
function withoutPrefix(text: string): string {
  if (!text.startsWith('$')) return text
  const plain = text.replace(PREFIX, '')
  return plain === text ? text.replace(DELAYED, '') : plain
}

/** Counts before splitting, so that 65,535 slashes make no array. */
function deeperThan(most: number, text: string): boolean {
  let levels = 1
  for (let at = text.indexOf('/'); at !== -1; at = text.indexOf('/', at + 1)) {
    levels += 1
    if (levels > most) return true
  }
  return false
}
