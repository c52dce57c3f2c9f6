/** Waits until something is so. @throws with the name of what did not happen */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string,
  limitMs = 10_000,
): Promise<void> {
  const end = Date.now() + limitMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`after ${limitMs} ms it is not so that ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
