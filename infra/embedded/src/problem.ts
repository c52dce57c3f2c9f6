/** Something that keeps the stack from running, told so that a person can act: what, why, what to do. */
export class StackProblem extends Error {
  override readonly name = 'StackProblem'
  constructor(
    readonly what: string,
    readonly why: string,
    readonly remedy: string,
    cause?: unknown,
  ) {
    super(`${what}: ${why}`, { cause })
  }
}
