import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY } from './repository'

/** docs/settings.md lists what the services are told from outside: every variable of every config.ts, with its default. */
const page = readFileSync(join(REPOSITORY, 'docs/settings.md'), 'utf8')

it.each([
  ['Every service', 'infra/chassis/src/config.ts'],
  ['api', 'services/api/src/config.ts'],
  ['listener', 'services/listener/src/config.ts'],
  ['authorizer', 'services/authorizer/src/config.ts'],
  ['Bootstrap, certificate agent, rotation', 'vault/src/config.ts'],
])('lists under "%s" what %s reads', (heading, file) => {
  const declared = declaredIn(readFileSync(join(REPOSITORY, file), 'utf8'))
  expect(declared.size).toBeGreaterThan(4)
  expect(Object.fromEntries(listedUnder(heading))).toEqual(Object.fromEntries(declared))
})

/** Each key of a schema with its default, as the page writes it. */
function declaredIn(source: string): Map<string, string> {
  // A declaration ends where its line does: the next key, a comment or the end of the object follows.
  const declarations = source.matchAll(/^ +(ARES_\w+): ((?:variable|z)\b[\s\S]*?),\n(?= *(?:ARES_|\/\*\*|\.\.\.|\}))/gm)
  return new Map([...declarations].map(([, name = '', text = '']) => [name, defaultOf(text)]))
}

function defaultOf(declaration: string): string {
  const [, given] = /\.(?:prefault|default)\((?:'([^']*)'|\[\])\)/.exec(declaration) ?? []
  if (given) return given
  return /\.(?:optional|prefault|default)\(/.test(declaration) ? '–' : 'required'
}

function listedUnder(heading: string): Map<string, string> {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? ''
  const rows = section.matchAll(/^\| `(ARES_\w+)` \| `?([^`|]*?)`? \|/gm)
  return new Map([...rows].map(([, name = '', value = '']) => [name, value]))
}
