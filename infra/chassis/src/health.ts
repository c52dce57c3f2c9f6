/** One check, as it is reported. */
export interface CheckState {
  readonly ok: boolean
  /** It works for now and somebody should look, e.g. with Vault sealed and a certificate that is good for hours. */
  readonly degraded?: boolean
  readonly detail?: string
}

/** What a probe found. A plain boolean is enough when there is nothing to add. */
export type CheckResult = boolean | CheckState

export interface HealthReport {
  readonly ok: boolean
  /** A check is degraded; the service is ready all the same. */
  readonly degraded: boolean
  readonly checks: Readonly<Record<string, CheckState>>
}

/** The named checks of a service; ready when all of them hold. */
export class Health {
  private readonly probes = new Map<string, () => CheckResult | Promise<CheckResult>>()

  /** A check that is asked each time somebody wants a report. It has 2 s; a later answer, like an error, is a failure. */
  check(name: string, probe: () => CheckResult | Promise<CheckResult>): void {
    this.probes.set(name, probe)
  }

  /** A check whose result is told when it changes. */
  set(name: string, ok: boolean, detail?: string): void {
    this.probes.set(name, () => ({ ok, ...(detail === undefined ? {} : { detail }) }))
  }

  async report(): Promise<HealthReport> {
    const entries = await Promise.all(
      [...this.probes].map(async ([name, probe]) => [name, await resultOf(probe)] as const),
    )
    return {
      ok: entries.every(([, result]) => result.ok),
      degraded: entries.some(([, result]) => result.degraded === true),
      checks: Object.fromEntries(entries),
    }
  }
}

const PROBE_LIMIT_MS = 2_000

async function resultOf(probe: () => CheckResult | Promise<CheckResult>): Promise<CheckState> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<CheckResult>((resolve) => {
    timer = setTimeout(() => resolve({ ok: false, detail: `no answer in ${PROBE_LIMIT_MS} ms` }), PROBE_LIMIT_MS)
  })
  try {
    const result = await Promise.race([probe(), limit])
    return typeof result === 'boolean' ? { ok: result } : result
  } catch (error) {
    return { ok: false, detail: error instanceof Error ? error.message : String(error) }
  } finally {
    clearTimeout(timer)
  }
}
