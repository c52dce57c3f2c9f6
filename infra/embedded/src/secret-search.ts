import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'

export interface SecretHit {
  /** Name of what was found, never the thing itself. */
  readonly what: string
  /** Relative to the folder that was searched. */
  readonly path: string
}

/**
 * Looks for texts and shapes in every file of some folders, byte for byte, in files of any size and kind.
 * @param texts by name; one hit per name and file
 * @param shapes by name; a match may be up to 4 KiB long
 */
export async function searchFiles(
  folders: readonly string[],
  texts: ReadonlyMap<string, readonly string[]>,
  shapes: Readonly<Record<string, RegExp>>,
): Promise<{ readonly files: number; readonly hits: readonly SecretHit[] }> {
  const hits: SecretHit[] = []
  let files = 0
  for (const folder of new Set(folders)) {
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      files += 1
      const file = join(entry.parentPath, entry.name)
      for (const what of await searchFile(file, texts, shapes)) hits.push({ what, path: relative(folder, file) })
    }
  }
  return { files, hits }
}

/**
 * How a secret may be written: as it is, and in base64 as part of anything (a Basic header, a JWT, a dump), where the bytes
 * before it decide which of three writings it has. What is at the edges depends on the neighbours and is left out.
 */
export function writingsOf(secret: string): readonly string[] {
  const inBase64 = [0, 1, 2].map((shift) => {
    const encoded = Buffer.concat([Buffer.alloc(shift), Buffer.from(secret)]).toString('base64')
    const first = Math.ceil((shift * 8) / 6)
    const whole = Math.floor(((shift + Buffer.byteLength(secret)) * 8) / 6)
    return encoded.slice(first, whole)
  })
  const urlSafe = inBase64.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'))
  return [...new Set([secret, ...inBase64, ...urlSafe])]
}

/** A secret on the border of two chunks is found, too. */
const OVERLAP = 4_096

async function searchFile(
  file: string,
  texts: ReadonlyMap<string, readonly string[]>,
  shapes: Readonly<Record<string, RegExp>>,
): Promise<Set<string>> {
  const found = new Set<string>()
  let rest = ''
  for await (const chunk of createReadStream(file, { highWaterMark: 1_048_576 })) {
    // latin1: every byte is a character, so that binary files can be searched as text.
    const text = rest + (chunk as Buffer).toString('latin1')
    for (const [what, needles] of texts) if (needles.some((needle) => text.includes(needle))) found.add(what)
    for (const [what, shape] of Object.entries(shapes)) if (shape.test(text)) found.add(what)
    rest = text.slice(-OVERLAP)
  }
  return found
}
