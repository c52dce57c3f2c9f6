import type { Change, Checksum, Entry } from '@ares/proto/directory/v1/directory'

/**
 * The directory: who exists and what they may be admitted with, as the authorizers hold it in memory.
 *
 * Each change of a device, a person, a session key or a certificate gets the next version, in its own transaction (see
 * directory.changes.ts). The row lock on the head makes versions gap-free in the order of commit, so whoever has read
 * version n has seen everything up to n.
 */
export interface DirectoryReader {
  /** Names this directory's life, and the newest version that is committed. */
  head(): Promise<DirectoryHead>

  /** The changes after a version, in order, whole as their entries are now; empty when there is none.
   *  Undefined: not all of them are kept any more, or the version is not one of this directory. */
  changesAfter(version: bigint, limit: number): Promise<Change[] | undefined>

  /** Everything as of one version, in chunks that are read one by one: `sink` is waited for.
   *  @returns the version and how many entries there were */
  snapshot(sink: SnapshotSink): Promise<void>

  /** Begins the checksum of everything as of the newest version, that replicas are compared with. */
  beginChecksum(): Promise<ChecksumBegun>
}

/** A view of the database that is held until one of its two methods was called. */
export interface ChecksumBegun {
  readonly version: bigint
  /** Revoked certificates and session keys that end then or before are not in it. */
  readonly without: Date
  /** Reads everything: seconds for a million devices. */
  compute(): Promise<Checksum>
  cancel(): Promise<void>
}

export interface DirectoryHead {
  readonly epoch: string
  readonly version: bigint
}

export interface SnapshotSink {
  begin(head: DirectoryHead): Promise<void>
  /** At most 5,000 entries. */
  chunk(entries: Entry[]): Promise<void>
  end(entries: number): Promise<void>
}
