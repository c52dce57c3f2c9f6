import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** Processes that are not our children: what a killed stack left running. */

/** True while a process with this id exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !isZombie(pid)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** The command line of a process, or undefined when there is none: ids are given out again, so look before you end one. */
export function commandLineOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() || undefined
  } catch {
    const answer = spawnSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' })
    return answer.status === 0 ? answer.stdout.trim() || undefined : undefined
  }
}

/**
 * Ends a process whose command line holds all of `marks`; leaves any other alone.
 * @returns true when it was ours and is gone now, false when there was nothing of ours
 * @throws when it does not end in time
 */
export async function endIfOurs(
  pid: number,
  marks: readonly string[],
  signals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGKILL'],
  graceMs = 10_000,
): Promise<boolean> {
  if (!isAlive(pid)) return false
  const command = commandLineOf(pid)
  if (!command || !marks.every((mark) => command.includes(mark))) return false
  for (const signal of signals) {
    try {
      process.kill(pid, signal)
    } catch {
      return true
    }
    if (await goneWithin(pid, graceMs)) return true
  }
  throw new Error(`Process ${pid} (${marks.join(' ')}) is left from an earlier run and does not end. Stop it by hand.`)
}

/** Waits until the process is gone. @returns false when it still lives after `limitMs` */
export async function goneWithin(pid: number, limitMs: number): Promise<boolean> {
  const end = Date.now() + limitMs
  while (isAlive(pid)) {
    if (Date.now() > end) return false
    await sleep(25)
  }
  return true
}

/** A process that has ended but whose parent has not looked yet still answers signal 0. */
function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
  } catch {
    return false
  }
}

/**
 * When a process was born, in the system's own notation: with its id it names a process for ever, while ids alone are
 * given out again. Undefined when there is none.
 */
export function bornAt(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] // field 22: clock ticks since the boot
  } catch {
    const answer = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' })
    return answer.status === 0 ? answer.stdout.trim() || undefined : undefined
  }
}
