import { type ChildProcess, fork } from 'node:child_process'
import { extname, join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** A process of a benchmark that we tell what to do, and that answers. It ends when we end. */
export class BenchProcess<Order, News extends { readonly type: string }> {
  private readonly heard: News[] = []
  private readonly waiting: Array<() => void> = []
  private ended: string | undefined

  private constructor(
    readonly name: string,
    private readonly child: ChildProcess,
  ) {
    child.on('message', (news) => {
      this.heard.push(news as News)
      this.wake()
    })
    child.once('exit', (code, signal) => {
      this.ended = signal ?? `exit code ${code}`
      this.wake()
    })
  }

  /** Runs a file of this folder. @param folder of the caller @param file without its extension */
  static start<Order, News extends { readonly type: string }>(folder: string, file: string): BenchProcess<Order, News> {
    const extension = extname(__filename)
    const child = fork(join(folder, `${file}${extension}`), {
      // Not our own flags: under jest they do not say how TypeScript is run.
      execArgv:
        extension === '.ts' ? ['--conditions=source', `--import=${pathToFileURL(require.resolve('tsx')).href}`] : [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    return new BenchProcess(file, child)
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  tell(order: Order): void {
    if (this.child.connected) this.child.send(order as object)
  }

  /** Waits for the next news of a kind; what came before it is dropped. @throws when it ended or says that it failed */
  async next<Type extends News['type']>(type: Type, limitMs = 60_000): Promise<Extract<News, { type: Type }>> {
    const giveUpAt = Date.now() + limitMs
    for (;;) {
      for (let news = this.heard.shift(); news; news = this.heard.shift()) {
        if (news.type === type) return news as Extract<News, { type: Type }>
        if (news.type === 'failed') throw new Error(`${this.name}: ${(news as { reason?: string }).reason}`)
      }
      if (this.ended !== undefined) throw new Error(`${this.name} ended: ${this.ended}`)
      if (Date.now() > giveUpAt) throw new Error(`${this.name} did not say "${type}" within ${limitMs} ms`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(1, giveUpAt - Date.now() + 1))
        this.waiting.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  async stop(): Promise<void> {
    if (this.ended !== undefined) return
    const gone = new Promise<void>((resolve) => this.child.once('exit', () => resolve()))
    if (this.child.connected) this.child.disconnect()
    const killer = setTimeout(() => this.child.kill('SIGKILL'), 5_000)
    await gone
    clearTimeout(killer)
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve()
  }
}
