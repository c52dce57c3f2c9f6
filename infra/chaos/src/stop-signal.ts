/** Rejects when somebody wants the run to stop; what was started is stopped on the way out. */
export function stopSignal(): Promise<never> {
  const stopped = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => reject(new Error(`stopped by ${signal}`)))
    }
  })
  // Not every moment of a run waits for it.
  stopped.catch(() => undefined)
  return stopped
}
