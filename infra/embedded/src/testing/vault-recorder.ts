import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import * as tls from 'node:tls'
import { TestAuthority } from '@ares/chassis/testing'

/**
 * Stands between the services and Vault, with a TLS certificate of its own, and reads along: what a service gets there
 * is in its memory alone, and a test that looks for it on the disk has to know it. Keeps every word in memory.
 */
export class VaultRecorder {
  private heard = ''
  private readonly sockets = new Set<tls.TLSSocket>()

  private constructor(
    private readonly server: tls.Server,
    /** What its clients have to trust. */
    readonly caPem: string,
  ) {}

  /** @param target where Vault is, asked at each connection */
  static async start(target: () => { readonly address: string; readonly caPem: string }): Promise<VaultRecorder> {
    const { keyPem, chainPem, caPem } = await (await TestAuthority.create()).leaf('localhost')
    const server = tls.createServer({ key: keyPem, cert: chainPem, ALPNProtocols: ['http/1.1'] })
    const recorder = new VaultRecorder(server, caPem)
    server.on('secureConnection', (socket) => recorder.join(socket, target()))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return recorder
  }

  get address(): string {
    return `https://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** Every token, secret id and role id that went by, by the kind of thing. */
  secrets(): ReadonlyMap<string, readonly string[]> {
    const all = (shape: RegExp) => [...new Set([...this.heard.matchAll(shape)].map(([, text = '']) => text))]
    return new Map([
      ['a token of Vault, or a wrapping token', all(/^x-vault-token: *(\S+)\r$/gim)],
      ['a token that Vault gave', all(/"client_token":"([^"]+)"/g)],
      ['a secret id of a service', all(/"secret_id":"([^"]+)"/g)],
      ['a role id', all(/"role_id":"([^"]+)"/g)],
    ])
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    for (const socket of this.sockets) socket.destroy()
    await closed
  }

  private join(socket: tls.TLSSocket, { address, caPem }: { address: string; caPem: string }): void {
    const { port, hostname: host } = new URL(address)
    const upstream = tls.connect({ port: Number(port), host, ca: caPem, ALPNProtocols: ['http/1.1'] })
    this.sockets.add(socket)
    // Each direction of a connection is kept whole: a secret may come in two pieces.
    const pass = (from: tls.TLSSocket, to: tls.TLSSocket) => {
      let words = ''
      from.on('data', (data) => {
        words += data.toString('latin1')
        to.write(data)
      })
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.heard += `${words}\n`
        to.destroy()
      })
    }
    pass(socket, upstream)
    pass(upstream, socket)
    socket.on('close', () => this.sockets.delete(socket))
  }
}
