/** What the stack tells while it starts. */
export interface Progress {
  /** A step begins. */
  begun(step: string): void
  /** A step is done. */
  done(step: string, ms: number, detail?: string): void
  /** Something worth a line. */
  note(line: string): void
}

export const SILENT: Progress = { begun: () => {}, done: () => {}, note: () => {} }

/** Runs a step and tells how long it took. What the step returns as `detail` is printed beside it. */
export async function step<T>(progress: Progress, name: string, work: () => Promise<T>, detail?: string): Promise<T> {
  const began = performance.now()
  progress.begun(name)
  const result = await work()
  progress.done(name, performance.now() - began, detail)
  return result
}

const SLOW_MS = 5_000

/** One line for each step when it is done; one before that for a step that takes long. */
export function terminalProgress(out: NodeJS.WritableStream = process.stdout): Progress & { stop(): void } {
  const open = new Map<string, NodeJS.Timeout>()
  const line = (mark: string, text: string) => out.write(`  ${mark} ${text}\n`)
  const close = (name: string) => {
    clearTimeout(open.get(name))
    open.delete(name)
  }
  return {
    begun(name) {
      open.set(
        name,
        setTimeout(() => line('…', `${name}: takes a while`), SLOW_MS),
      )
    },
    done(name, ms, detail) {
      close(name)
      line('✓', `${name.padEnd(34)} ${(ms / 1000).toFixed(1).padStart(5)} s${detail ? `   ${detail}` : ''}`)
    },
    note: (text) => line('·', text),
    stop: () => [...open.keys()].forEach(close),
  }
}
