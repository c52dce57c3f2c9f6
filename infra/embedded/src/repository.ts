import { join } from 'node:path'

/** The checkout: the same from src/ and from dist/. */
export const REPOSITORY = join(__dirname, '../../..')
