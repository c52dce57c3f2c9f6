import { createHash, randomBytes } from 'node:crypto'

/** So that a token is known for what it is in a log or a repository, by people and by scanners. */
const PREFIX = 'ares_enroll_'

/** 256 random bits. */
export const newEnrollmentSecret = (): string => `${PREFIX}${randomBytes(32).toString('base64url')}`

/** What is kept. Nobody can guess 256 bits, so a slow hash would add nothing. */
export const hashOf = (token: string): Buffer<ArrayBuffer> => Buffer.from(createHash('sha256').update(token).digest())
