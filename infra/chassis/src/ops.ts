import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Registry } from 'prom-client'
import type { Bind } from './config'
import type { Health } from './health'
import type { Logger } from './log'

export interface OpsServer {
  readonly port: number
  stop(): Promise<void>
}

/**
 * The plain HTTP endpoint for operators: GET /health/live (200 while the process turns), GET /health/ready (200 or 503,
 * with every named check as JSON) and GET /metrics (all of them, or those that `?name[]=` names, once or more often, as
 * other Prometheus clients have it). It shows no data of anybody; bind it to an inner address.
 */
export async function startOpsServer(options: {
  readonly bind: Bind
  readonly health: Health
  readonly metrics: Registry
  readonly logger: Logger
}): Promise<OpsServer> {
  const server = createServer((request, response) => {
    answer(request, response, options).catch((error: unknown) => {
      options.logger.error('the ops endpoint could not answer', { url: request.url, error })
      if (!response.headersSent) response.writeHead(500)
      response.end()
    })
  })
  server.listen(options.bind.port, options.bind.host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { health, metrics }: { health: Health; metrics: Registry },
): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') return send(response, 405, 'text/plain', 'GET only\n')
  const [path, query] = request.url?.split('?', 2) ?? []
  switch (path) {
    case '/health/live':
      return send(response, 200, 'application/json', JSON.stringify({ ok: true }))
    case '/health/ready': {
      const report = await health.report()
      return send(response, report.ok ? 200 : 503, 'application/json', JSON.stringify(report))
    }
    case '/metrics':
      return send(response, 200, metrics.contentType, await metricsText(metrics, query))
    default:
      return send(response, 404, 'text/plain', 'there is /health/live, /health/ready and /metrics\n')
  }
}

async function metricsText(metrics: Registry, query: string | undefined): Promise<string> {
  const names = new URLSearchParams(query).getAll('name[]')
  if (names.length === 0) return metrics.metrics()
  const known = names.filter((name) => metrics.getSingleMetric(name))
  const texts = await Promise.all(known.map((name) => metrics.getSingleMetricAsString(name)))
  return texts.map((text) => `${text}\n`).join('')
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
  response.end(body)
}
