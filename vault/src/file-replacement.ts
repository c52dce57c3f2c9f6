import { randomBytes } from 'node:crypto'
import { chmod, chown, open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'

export interface FileAccess {
  readonly mode: number
  /** Left as they are when not given. */
  readonly uid?: number
  readonly gid?: number
}

/**
 * Puts a file in place so that a reader sees the old content or the new, never a part, also after a power cut:
 * write beside it, fsync, rename, fsync of the directory. Mode and owner are set before it has its name.
 */
export async function replaceFile(file: string, content: string, access: FileAccess): Promise<void> {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(4).toString('hex')}`)
  try {
    const handle = await open(temporary, 'wx', access.mode)
    try {
      await handle.chmod(access.mode) // the umask may have taken bits away
      if (access.uid !== undefined || access.gid !== undefined) {
        const now = await handle.stat()
        const [uid, gid] = [access.uid ?? now.uid, access.gid ?? now.gid]
        if (uid !== now.uid || gid !== now.gid) await handle.chown(uid, gid)
      }
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(path.dirname(file))
}

/** Corrects mode and owner of one named file or directory. @returns whether something had to be corrected */
export async function ensureAccess(file: string, access: FileAccess): Promise<boolean> {
  const now = await stat(file)
  const [uid, gid] = [access.uid ?? now.uid, access.gid ?? now.gid]
  const rightMode = (now.mode & 0o7777) === access.mode
  const rightOwner = now.uid === uid && now.gid === gid
  // The owner first: chown may clear bits of the mode.
  if (!rightOwner) await chown(file, uid, gid)
  if (!rightMode || !rightOwner) await chmod(file, access.mode)
  return !rightMode || !rightOwner
}

async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === 'win32') return // a directory cannot be opened there
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
