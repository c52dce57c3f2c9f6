/** Time goes by in spans of so many milliseconds, for what is counted along it. */
export const TALLY_MS = 500
