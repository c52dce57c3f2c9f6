// Health check of a container: exit 0 when the service says it is ready. The address is the ops endpoint's.
const url = process.argv[2] ?? 'http://127.0.0.1:9100/health/ready'
fetch(url, { signal: AbortSignal.timeout(4000) }).then(
  async (response) => {
    if (!response.ok) console.error(await response.text())
    process.exit(response.ok ? 0 : 1)
  },
  (error) => {
    console.error(String(error.cause ?? error))
    process.exit(1)
  },
)
