import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** CPU that a process and its children have used since they began, in microseconds; of children that ended as well. */
export function cpuMicros(pid: number): number {
  const table = processTable()
  const family = familyOf(pid, table)
  return family.reduce((sum, member) => sum + (table.get(member)?.cpuMicros ?? 0), 0)
}

/** Memory that a process has in use now, in MB (10^6 bytes); 0 where the system does not tell. */
export function residentMegabytes(pid: number): number {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return (Number(kilobytes ?? 0) * 1_024) / 1e6
  } catch {
    const answer = spawnSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })
    return (Number(answer.stdout?.trim() || 0) * 1_024) / 1e6
  }
}

interface ProcessEntry {
  readonly parent: number
  readonly cpuMicros: number
}

function processTable(): Map<number, ProcessEntry> {
  try {
    return tableOfProc()
  } catch {
    return tableOfPs()
  }
}

// On Linux a clock tick is 10 ms for programs, whatever the kernel's own is.
const TICK_MICROS = 10_000

function tableOfProc(): Map<number, ProcessEntry> {
  const table = new Map<number, ProcessEntry>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const fields = statFields(name)
    if (!fields) continue
    // proc(5): ppid is field 4; utime, stime, cutime, cstime are 14 to 17. The list begins with field 3.
    const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0)
    table.set(Number(name), { parent: Number(fields[1]), cpuMicros: ticks * TICK_MICROS })
  }
  if (table.size === 0) throw new Error('/proc lists no process')
  return table
}

function statFields(pid: string): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined // it has just ended
  }
}

/** Coarser: children that ended are not in it. */
function tableOfPs(): Map<number, ProcessEntry> {
  const { stdout } = spawnSync('ps', ['-A', '-o', 'pid=,ppid=,time='], { encoding: 'utf8' })
  const table = new Map<number, ProcessEntry>()
  for (const line of stdout.trim().split('\n')) {
    const [pid, parent, time = ''] = line.trim().split(/\s+/)
    const seconds = time.split(/[:-]/).reduce((sum, part) => sum * 60 + Number(part), 0)
    table.set(Number(pid), { parent: Number(parent), cpuMicros: seconds * 1e6 })
  }
  return table
}

function familyOf(pid: number, table: ReadonlyMap<number, ProcessEntry>): number[] {
  const family = [pid]
  for (let at = 0; at < family.length; at++) {
    for (const [child, { parent }] of table) if (parent === family[at]) family.push(child)
  }
  return family
}
