/**
 * The body that emqx.conf gives a webhook. As EMQX: every value a string; a placeholder that is known but has no value is
 * empty; one that is not allowed here is sent literally; `${$}{x}` is the literal `${x}`.
 */
export class BodyTemplate<P extends string> {
  private readonly fields: ReadonlyArray<readonly [name: string, parts: readonly Part<P>[]]>

  constructor(template: Readonly<Record<string, string>>, allowed: readonly P[]) {
    this.fields = Object.entries(template).map(([name, text]) => [name, partsOf(text, allowed)])
  }

  render(values: Readonly<Record<P, string>>): Record<string, string> {
    const body: Record<string, string> = {}
    for (const [name, parts] of this.fields) {
      let text = ''
      for (const part of parts) text += typeof part === 'string' ? part : values[part.placeholder]
      body[name] = text
    }
    return body
  }
}

type Part<P extends string> = string | { readonly placeholder: P }

function partsOf<P extends string>(text: string, allowed: readonly P[]): Part<P>[] {
  const parts: Part<P>[] = []
  let literal = ''
  for (const token of text.split(/(\$\{[^}]*\})/)) {
    const name = /^\$\{(.*)\}$/.exec(token)?.[1]
    const placeholder = allowed.find((candidate) => candidate === name)
    if (placeholder === undefined) {
      literal += name === '$' ? '$' : token
      continue
    }
    if (literal !== '') parts.push(literal)
    literal = ''
    parts.push({ placeholder })
  }
  if (literal !== '') parts.push(literal)
  return parts
}
