/** A wait that can be ended early. */
export class Pause {
  private finish: (() => void) | undefined

  /** Resolves after the time, when `end` is called, or when the signal aborts. It does not keep the process alive. */
  start(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) {
        resolve()
        return
      }
      const finish = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        this.finish = undefined
        resolve()
      }
      const timer = setTimeout(finish, milliseconds).unref()
      signal?.addEventListener('abort', finish, { once: true })
      this.finish = finish
    })
  }

  end(): void {
    this.finish?.()
  }
}
