import parseHocon from '@pushcorn/hocon-parser'

/**
 * Applies `EMQX_…` variables to a parsed configuration as EMQX does: `EMQX_LISTENERS__SSL__DEVICES__BIND` is
 * `listeners.ssl.devices.bind`, `EMQX_AUTHENTICATION__1__URL` is the url of the first element (EMQX counts from 1),
 * and a value is HOCON where it can be read as such, otherwise the text itself.
 *
 * Only names with `__`, or of one of `roots`, are configuration: `EMQX_CONF` names the file.
 * @throws Error naming the variable, when its path leads to a list element that is not there
 */
export async function applyOverrides(
  conf: Record<string, unknown>,
  env: Readonly<Record<string, string | undefined>>,
  roots: readonly string[],
): Promise<void> {
  for (const name of Object.keys(env).sort()) {
    const value = env[name]
    const path = name.startsWith('EMQX_') ? name.slice('EMQX_'.length).toLowerCase() : ''
    if (value === undefined || path === '') continue
    if (!path.includes('__') && !roots.includes(path)) continue
    place(conf, path.split('__'), await hoconValue(value), name)
  }
}

function place(conf: Record<string, unknown>, path: readonly string[], value: unknown, variable: string): void {
  let parent: Container = conf
  for (const [depth, segment] of path.entries()) {
    const key = keyIn(parent, segment, variable)
    const current = get(parent, key)
    if (depth === path.length - 1) {
      set(parent, key, isObject(current) && isObject(value) ? merged(current, value) : value)
      return
    }
    const next: Container = isObject(current) || Array.isArray(current) ? current : {}
    set(parent, key, next)
    parent = next
  }
}

type Container = Record<string, unknown> | unknown[]

function keyIn(parent: Container, segment: string, variable: string): string | number {
  if (!Array.isArray(parent)) return segment
  const position = Number(segment)
  if (!Number.isInteger(position) || position < 1 || position > parent.length) {
    throw new Error(`${variable}: the list has elements 1 to ${parent.length}, there is no element "${segment}"`)
  }
  return position - 1
}

function get(parent: Container, key: string | number): unknown {
  return Array.isArray(parent) ? parent[Number(key)] : parent[key]
}

function set(parent: Container, key: string | number, value: unknown): void {
  if (Array.isArray(parent)) parent[Number(key)] = value
  else parent[key] = value
}

function merged(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const result: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(over)) {
    const current = result[key]
    result[key] = isObject(current) && isObject(value) ? merged(current, value) : value
  }
  return result
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Text that is no HOCON value (an address with a colon, a path, a url) stands for itself. */
async function hoconValue(text: string): Promise<unknown> {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text)
  if (text === 'true') return true
  if (text === 'false') return false
  if (!/^\s*["[{]/.test(text)) return text
  try {
    const { value } = (await parseHocon.parse({ text: `value = ${text}` })) as { value: unknown }
    return value
  } catch {
    return text
  }
}
