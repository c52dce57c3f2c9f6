import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { onShutdownSignal, runMain } from '@ares/chassis'
import { ApiClient } from './api-client'
import { DEMO_FLEET } from './fleet'
import { Simulator } from './simulator'

const HELP = `Simulated devices: each makes a key, gets a certificate by CSR over REST, connects over mutual TLS and
reports what a DHT22 in a room would say.

  node scripts/run.mjs infra/simulator/src/main.ts --login FILE [options]

  --login FILE         JSON with email and password of somebody who may make devices (npm start writes one:
                       .ares/first-login.json)
  --api URL            REST address (default http://127.0.0.1:8080)
  --mqtt URL           broker (default mqtts://127.0.0.1:8883)
  --devices N          how many (default ${DEMO_FLEET.devices})
  --interval MS        time between two reports of a device (default 2000)
  --organization NAME  default "${DEMO_FLEET.organization}"
  --prefix NAME        names are NAME-01, NAME-02, ... (default "${DEMO_FLEET.prefix}")
  --renew-after PART   part of a certificate's life after which a device asks for the next one (default: 0.5 to 0.6)
  --ready-file FILE    is written when every device had a receipt: its first report is a row
  --verbose            print what the devices see
  --help
`

runMain('simulator', async () => {
  const { values } = parseArgs({
    options: {
      api: { type: 'string', default: 'http://127.0.0.1:8080' },
      mqtt: { type: 'string', default: 'mqtts://127.0.0.1:8883' },
      login: { type: 'string' },
      devices: { type: 'string', default: String(DEMO_FLEET.devices) },
      interval: { type: 'string', default: '2000' },
      organization: { type: 'string', default: DEMO_FLEET.organization },
      prefix: { type: 'string', default: DEMO_FLEET.prefix },
      'renew-after': { type: 'string' },
      'ready-file': { type: 'string' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help || !values.login) {
    process.stdout.write(HELP)
    return
  }
  const login = JSON.parse(readFileSync(values.login, 'utf8')) as { email: string; password: string }
  const simulator = await Simulator.start(new ApiClient(values.api, login), {
    plan: {
      ...DEMO_FLEET,
      organization: values.organization,
      prefix: values.prefix,
      devices: wholeNumber('--devices', values.devices),
    },
    mqttUrl: values.mqtt,
    intervalMs: wholeNumber('--interval', values.interval),
    renewAfter: values['renew-after'] === undefined ? undefined : part('--renew-after', values['renew-after']),
    log: values.verbose ? (line) => console.log(line) : undefined,
  })
  const timer = setInterval(() => console.log(JSON.stringify(simulator.stats())), 5_000)
  const readyFile = values['ready-file']
  const look =
    readyFile === undefined
      ? undefined
      : setInterval(() => {
          if (!simulator.everyDeviceHasAReceipt()) return
          writeFileSync(readyFile, '')
          clearInterval(look)
        }, 200)
  await onShutdownSignal()
  clearInterval(timer)
  clearInterval(look)
  await simulator.stop()
})

function wholeNumber(option: string, text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${option} must be a whole number, not "${text}"`)
  return value
}

function part(option: string, text: string): number {
  const value = Number(text)
  if (!(value >= 0 && value <= 1)) throw new Error(`${option} must be between 0 and 1, not "${text}"`)
  return value
}
