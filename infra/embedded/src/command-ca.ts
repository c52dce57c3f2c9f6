import { existsSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ROTATION_PHASES, RotationRefused, rotateIntermediate } from '@ares/vault'
import { CommonOptions, wholeNumber } from './command-options'
import type { InternalPorts } from './ports'
import { StackProblem } from './problem'
import { StackLock } from './stack-lock'
import { StateFolder } from './state-folder'

export const CA_HELP = `npm run ca -- PHASE [options]

Replaces the intermediate CA of the stack that runs; nothing stops for it. Each phase may be run again:
  add       makes the next intermediate; the CA bundle holds both
  switch    from now on the new one issues; leaves move over as they are renewed
  retire    stops the old one, and removes it when no leaf of it lives (exit code 3: not yet)

  --settle SECONDS    least age of the bundle before the switch (default 10; a real EMQX wants 180)
  --state DIR         where data is kept (default .ares/, or $ARES_STATE)
  --help
`

/** Carries out a phase of a rotation. @returns the exit code */
export async function ca(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { ...CommonOptions.declared, settle: { type: 'string', default: '10' } },
  })
  const phase = ROTATION_PHASES.find((each) => each === positionals[0])
  if (values.help || !phase || positionals.length !== 1) {
    process.stdout.write(CA_HELP)
    return values.help ? 0 : 1
  }
  const state = new StateFolder(CommonOptions.stateDir(values))
  const vault = runningVault(state)
  const settleMs = wholeNumber('--settle', values.settle, 0, 86_400) * 1_000
  try {
    const logger = { info: told, warn: told }
    const { changes, waitsFor } = await rotateIntermediate(phase, { ...vault, settleMs, logger })
    process.stdout.write(
      waitsFor ? `Not finished: ${waitsFor}.\n` : changes.length > 0 ? 'Done.\n' : 'Nothing to change.\n',
    )
    return waitsFor ? 3 : 0
  } catch (error) {
    if (!(error instanceof RotationRefused)) throw error
    throw new StackProblem(`The phase "${phase}" cannot be carried out now`, error.message, 'See: npm run ca -- --help')
  }
}

const told = (message: string, fields?: object): void => {
  process.stdout.write(`  ${message}: ${Object.values(fields ?? {}).join(', ')}\n`)
}

function runningVault(state: StateFolder) {
  const port = state.readJson<Partial<InternalPorts>>('ports.json')?.vault
  const caFile = state.at('vault/tls/ca.crt')
  if (!StackLock.holder(state) || !port || !existsSync(caFile)) {
    throw new StackProblem('The stack does not run', `nobody holds ${state.path}`, 'Start it first: npm start')
  }
  return {
    address: `https://127.0.0.1:${port}`,
    caPem: readFileSync(caFile, 'utf8'),
    keyFile: state.at('vault/keys.json'),
    certsDir: state.certs,
  }
}
