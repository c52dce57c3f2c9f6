import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { ConfigError, commonVariables, readEnvironment, variable } from './config'

const directory = mkdtempSync(join(tmpdir(), 'ares-config-'))
afterAll(() => rmSync(directory, { recursive: true }))

function problemsOf(schema: z.ZodObject, env: NodeJS.ProcessEnv): readonly string[] {
  try {
    readEnvironment(schema, env)
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError)
    return (error as ConfigError).problems
  }
  return []
}

describe('readEnvironment', () => {
  it('lists every problem at once and names each variable', () => {
    const schema = z.object({
      ARES_PORT: variable.port(),
      ARES_BIND: variable.bind(),
      ARES_URL: variable.url(['https:']),
      ARES_CERT: variable.file(),
      ARES_GOOD: variable.integer(),
    })
    expect(
      problemsOf(schema, {
        ARES_PORT: '70000',
        ARES_BIND: 'nowhere',
        ARES_CERT: '/no/such/file',
        ARES_GOOD: '7',
      }),
    ).toEqual([
      'ARES_PORT: must be a port from 0 to 65535',
      'ARES_BIND: must be host:port, for example 0.0.0.0:8080',
      'ARES_URL: is not set',
      'ARES_CERT: the file /no/such/file does not exist',
    ])
  })

  it('says that a directory is not the file it wants', () => {
    expect(problemsOf(z.object({ ARES_CERT: variable.file() }), { ARES_CERT: directory })).toEqual([
      `ARES_CERT: ${directory} is a directory, a file is wanted`,
    ])
  })

  it('takes a value from the file that X_FILE names, without its newline', () => {
    const file = join(directory, 'password')
    writeFileSync(file, 'tr0ub4dor\n')
    const schema = z.object({ ARES_PASSWORD: variable.text() })
    expect(readEnvironment(schema, { ARES_PASSWORD_FILE: file })).toEqual({ ARES_PASSWORD: 'tr0ub4dor' })
  })

  it('names the file of X_FILE that cannot be read, and refuses two sources', () => {
    const schema = z.object({ ARES_A: variable.text(), ARES_B: variable.text() })
    const problems = problemsOf(schema, { ARES_A_FILE: '/no/such', ARES_B: 'x', ARES_B_FILE: '/y' })
    expect(problems).toEqual([
      'ARES_A: ARES_A_FILE names /no/such, which cannot be read (ENOENT)',
      'ARES_B: both ARES_B and ARES_B_FILE are set; keep one of them',
    ])
  })

  it('does not take a setting of its own for the file of another', () => {
    const schema = z.object({ ARES_CA: variable.text().optional(), ARES_CA_FILE: variable.path() })
    expect(readEnvironment(schema, { ARES_CA_FILE: '/certs/ca.crt' })).toEqual({ ARES_CA_FILE: '/certs/ca.crt' })
  })

  it('never puts a value into a problem', () => {
    const problems = problemsOf(z.object({ ARES_DATABASE_URL: variable.url(['postgresql:']) }), {
      ARES_DATABASE_URL: 'mysql://ares:hunter22@db/ares',
    })
    expect(problems.join()).not.toContain('hunter22')
  })

  it('gives the common settings their defaults', () => {
    expect(
      readEnvironment(z.object(commonVariables), {
        ARES_VAULT_ADDR: 'https://vault:8200',
        ARES_VAULT_CREDENTIALS: 'parent',
        ARES_CA_FILE: '/certs/ca/full_chain_ca.crt',
        ARES_LOG_LEVEL: '',
      }),
    ).toEqual({
      ARES_LOG_LEVEL: 'info',
      ARES_OPS_BIND: { host: '127.0.0.1', port: 0 },
      ARES_VAULT_ADDR: 'https://vault:8200',
      ARES_VAULT_CREDENTIALS: 'parent',
      ARES_CA_FILE: '/certs/ca/full_chain_ca.crt',
    })
  })

  it.each([
    ['250ms', 250],
    ['20s', 20_000],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['40', 40],
  ])('reads the duration %s', (text, expected) => {
    expect(readEnvironment(z.object({ A: variable.durationMs() }), { A: text }).A).toBe(expected)
  })

  it.each([
    ['127.0.0.1:80', '127.0.0.1', 80],
    ['[::1]:0', '::1', 0],
    ['api:9090', 'api', 9090],
  ])('reads the address %s', (text, host, port) => {
    expect(readEnvironment(z.object({ A: variable.bind() }), { A: text }).A).toEqual({ host, port })
  })
})
