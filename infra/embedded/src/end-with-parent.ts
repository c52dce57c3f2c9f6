/**
 * Preloaded into every process of the stack: when the parent is killed and cannot stop us any more, we stop by ourselves.
 */
process.once('disconnect', () => {
  process.kill(process.pid, 'SIGTERM')
  setTimeout(() => process.exit(1), 10_000).unref()
})
process.channel?.unref()
