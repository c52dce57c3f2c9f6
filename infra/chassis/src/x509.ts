import 'reflect-metadata' // must come first: @peculiar/x509 throws while it is loaded without it
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(webcrypto)

/** @peculiar/x509, made ready. Take it from here and not from the package. */
export { x509 }
