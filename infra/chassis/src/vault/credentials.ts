import type { VaultClient } from './vault-client'

/** Where a service gets the credentials of a login from; each login needs fresh ones. */
export interface CredentialSource {
  next(signal?: AbortSignal): Promise<{ readonly roleId: string; readonly secretId: string }>
}

/** @param setting `parent`: asks the parent process over IPC; otherwise a directory with the files role-id and
 *  wrapped-secret-id, read anew for each login. @param client used for unwrapping, needs no token */
export function credentialsFrom(_setting: string, _client: VaultClient): CredentialSource {
  throw new Error('not built yet')
}
