import { constants } from 'node:crypto'
import * as https from 'node:https'
import * as net from 'node:net'
import type { Duplex } from 'node:stream'
import * as tls from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { FileWatch, namedFiles, readCertificateFiles } from '../certificate-files'
import type { SslListenerConf, WssListenerConf, ZoneConf } from '../conf/broker-conf'
import type { BrokerLogger } from '../logger'
import type { Origin } from '../peer'
import { type IntakeBuckets, paceIntake } from './intake'
import { PacketCounter } from './packet-counter'
import { TokenBucket } from './token-bucket'

export interface MqttListenerOptions {
  readonly id: string
  readonly conf: SslListenerConf | WssListenerConf
  readonly zone: ZoneConf
  readonly logger: BrokerLogger
  readonly certificatePollMs: number
  /** A connection whose TLS is done; its input is paced already. */
  readonly onConnection: (stream: Duplex, origin: Origin) => void
}

/** One listener of emqx.conf: TCP with a cap on new connections, TLS over it, WebSocket over that for `wss`. */
export class MqttListener {
  readonly id: string
  /** The bucket of all its clients together; its rate may change while it runs. */
  readonly messages: TokenBucket

  private readonly tcp: net.Server
  private readonly secure: tls.Server
  private readonly sockets = new Set<net.Socket>()
  private readonly newConnections: TokenBucket
  private certificates: FileWatch | undefined
  private webSockets: WebSocketServer | undefined

  constructor(private readonly options: MqttListenerOptions) {
    const { conf } = options
    this.id = options.id
    this.messages = new TokenBucket(conf.limiter.messages.rate)
    this.newConnections = new TokenBucket(conf.max_conn_rate)
    this.secure = this.secureServer()
    this.secure.on('tlsClientError', (error) =>
      options.logger.debug('ssl_error', { listener: this.id, reason: error.message }),
    )
    this.tcp = net.createServer((socket) => this.accept(socket))
  }

  get conf(): SslListenerConf | WssListenerConf {
    return this.options.conf
  }

  get connections(): number {
    return this.sockets.size
  }

  /** Resolves with the port, once it listens. */
  listen(): Promise<number> {
    const { host, port } = this.conf.bind
    return new Promise((resolve, reject) => {
      this.tcp.once('error', (error) =>
        reject(new Error(`Failed to start listener ${this.id} on ${host}:${port}: ${error.message}`)),
      )
      this.tcp.listen(port, host, () => {
        this.watchCertificates()
        resolve((this.tcp.address() as net.AddressInfo).port)
      })
    })
  }

  async close(): Promise<void> {
    this.certificates?.close()
    this.webSockets?.close()
    const closed = new Promise((resolve) => this.tcp.close(resolve))
    for (const socket of this.sockets) socket.destroy()
    await closed
    this.messages.close()
    this.newConnections.close()
  }

  private accept(socket: net.Socket): void {
    const { max_conn_rate, max_connections } = this.conf
    // Over the rate EMQX closes at once, before TLS, so that a storm costs little.
    const ignored = () => {}
    const tooFast = max_conn_rate !== Number.POSITIVE_INFINITY && !this.newConnections.take(1, ignored)
    if (tooFast) this.newConnections.forget(ignored)
    if (tooFast || this.sockets.size >= max_connections) {
      socket.destroy()
      return
    }
    socket.setNoDelay(true)
    this.sockets.add(socket)
    socket.once('close', () => this.sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    this.secure.emit('connection', socket)
  }

  private secureServer(): tls.Server {
    const { ssl_options } = this.conf
    const options: tls.TlsOptions = {
      ...readCertificateFiles(ssl_options),
      requestCert: ssl_options.verify === 'verify_peer',
      rejectUnauthorized: ssl_options.verify === 'verify_peer' && ssl_options.fail_if_no_peer_cert,
      minVersion: ssl_options.versions.includes('tlsv1.2') ? 'TLSv1.2' : 'TLSv1.3',
      // A resumed session would not show its certificate again: each handshake is a full one.
      secureOptions: constants.SSL_OP_NO_TICKET,
    }
    if ('websocket' in this.conf) return this.webSocketServer(options, this.conf)
    return tls.createServer(options, (socket) => {
      if (ssl_options.verify === 'verify_peer' && hasUnverifiedCertificate(socket)) socket.destroy()
      else this.open(socket, socket)
    })
  }

  private webSocketServer(options: tls.TlsOptions, conf: WssListenerConf): tls.Server {
    const server = https.createServer(options, (_request, response) => response.writeHead(404).end())
    const { mqtt_path, max_frame_size } = conf.websocket
    this.webSockets = new WebSocketServer({
      server,
      path: mqtt_path,
      maxPayload: Number.isFinite(max_frame_size) ? max_frame_size : 0,
      handleProtocols: (offered) => (offered.has('mqtt') ? 'mqtt' : false),
      verifyClient: ({ req }: { req: { headers: Record<string, string | string[] | undefined> } }) =>
        String(req.headers['sec-websocket-protocol'] ?? '').includes('mqtt'),
    })
    this.webSockets.on('connection', (webSocket, request) => {
      this.open(createWebSocketStream(webSocket), request.socket as tls.TLSSocket)
    })
    return server
  }

  private open(stream: Duplex, socket: tls.TLSSocket): void {
    const { conf, zone } = this.options
    const buckets: IntakeBuckets = {
      clientMessages: new TokenBucket(conf.messages_rate),
      clientBytes: new TokenBucket(conf.bytes_rate),
      listenerMessages: this.messages,
    }
    stream.once('close', () => {
      buckets.clientMessages.close()
      buckets.clientBytes.close()
    })
    paceIntake(stream, new PacketCounter(zone.max_packet_size), buckets)
    this.options.onConnection(stream, {
      listener: this.id,
      zone,
      enableAuthn: conf.enable_authn,
      host: (socket.remoteAddress ?? '').replace(/^::ffff:/, ''),
      port: socket.remotePort ?? 0,
      ...identityOf(socket),
    })
  }

  private watchCertificates(): void {
    const { logger, certificatePollMs } = this.options
    const files = namedFiles(this.conf.ssl_options)
    this.certificates = new FileWatch(files, () => this.reloadCertificates(), logger, certificatePollMs)
  }

  private reloadCertificates(): void {
    this.secure.setSecureContext({
      ...readCertificateFiles(this.conf.ssl_options),
      secureOptions: constants.SSL_OP_NO_TICKET,
      minVersion: this.conf.ssl_options.versions.includes('tlsv1.2') ? 'TLSv1.2' : 'TLSv1.3',
    })
    this.options.logger.info('certificate files taken up', { listener: this.id })
  }
}

/** Without fail_if_no_peer_cert a client may send none, but not a bad one. */
function hasUnverifiedCertificate(socket: tls.TLSSocket): boolean {
  return !socket.authorized && socket.getPeerX509Certificate() !== undefined
}

function identityOf(socket: tls.TLSSocket): { commonName: string; certificate: string } {
  const certificate = socket.authorized ? socket.getPeerCertificate() : undefined
  if (!certificate?.raw) return { commonName: '', certificate: '' }
  const names: string | string[] | undefined = certificate.subject.CN
  return { commonName: [names ?? []].flat().join(','), certificate: certificate.raw.toString('base64') }
}
