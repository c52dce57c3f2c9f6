import { readFile } from 'node:fs/promises'
import parseHocon from '@pushcorn/hocon-parser'
import { type BrokerConf, checkedConf, SECTIONS, type ZoneConf, zoneOf } from './broker-conf'
import { applyOverrides } from './overrides'

export interface LoadedConf {
  readonly conf: BrokerConf
  /** The MQTT settings of a listener's zone. */
  zone(name: string): ZoneConf
}

/**
 * Reads the file that EMQX would be started with, and the `EMQX_…` variables over it.
 * @throws Error naming the file or the variable, and every key that cannot be honoured
 */
export async function loadConf(path: string, env: Readonly<Record<string, string | undefined>>): Promise<LoadedConf> {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw new Error(`The EMQX configuration ${path} cannot be read: ${error.message}`)
  })
  const parsed = await parseHocon.parse({ text }).catch((error: Error) => {
    throw new Error(`The EMQX configuration ${path} is no HOCON: ${error.message}`)
  })
  const tree = parsed as Record<string, unknown>
  await applyOverrides(tree, env, SECTIONS)
  const conf = checkedConf(tree)
  return { conf, zone: (name) => zoneOf(conf, tree, name) }
}
