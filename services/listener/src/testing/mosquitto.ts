import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import * as net from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort, type Leaf } from '@ares/chassis'
import { until } from '@ares/chassis/testing'

/**
 * A mosquitto of our own on a free port: MQTT 5 and real `$share`, which the embedded broker has not.
 * @throws when mosquitto is not installed: these tests must not be left out silently
 */
export class Mosquitto {
  private constructor(
    private readonly folder: string,
    private readonly process: ChildProcess,
    readonly port: number,
  ) {}

  /** @param server its certificate; then it wants one of its clients too (mTLS) */
  static async start(server?: Leaf): Promise<Mosquitto> {
    const folder = await mkdtemp(join(tmpdir(), 'ares-mosquitto-'))
    const port = await freePort()
    const lines = [
      'allow_anonymous true',
      'persistence false',
      'max_queued_messages 0',
      'max_inflight_messages 0',
      'set_tcp_nodelay true',
      'user root',
      `listener ${port} 127.0.0.1`,
    ]
    if (server) {
      await writeFile(join(folder, 'ca.pem'), server.caPem)
      await writeFile(join(folder, 'server.pem'), server.chainPem)
      await writeFile(join(folder, 'server.key'), server.keyPem, { mode: 0o600 })
      lines.push(`cafile ${folder}/ca.pem`, `certfile ${folder}/server.pem`, `keyfile ${folder}/server.key`)
      lines.push('require_certificate true')
    }
    await writeFile(join(folder, 'mosquitto.conf'), `${lines.join('\n')}\n`)
    const path = `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/usr/local/sbin`
    const child = spawn('mosquitto', ['-c', join(folder, 'mosquitto.conf')], {
      stdio: 'ignore',
      env: { ...process.env, PATH: path },
    })
    let failure: Error | undefined
    child.once('error', (error) => {
      failure = new Error(`mosquitto is needed for this test (apt-get install mosquitto): ${error.message}`)
    })
    child.once('exit', (code) => {
      failure ??= new Error(`mosquitto ended with code ${code}`)
    })
    await until(async () => {
      if (failure) throw failure
      return accepts(port)
    }, 'mosquitto listens')
    return new Mosquitto(folder, child, port)
  }

  async stop(): Promise<void> {
    if (this.process.exitCode === null) {
      const ended = once(this.process, 'exit')
      this.process.kill('SIGKILL')
      await ended
    }
    await rm(this.folder, { recursive: true, force: true })
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
