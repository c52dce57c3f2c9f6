import { ALLOWED_KEYS, csrFor, REFUSED_CSRS } from '../../testing/csrs'
import { checkCsr } from './csr'

const NAME = '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11.device.ares4.internal'

describe('a CSR', () => {
  it.each(ALLOWED_KEYS)('with a key of %s is taken', async (_what, algorithm) => {
    const pem = await csrFor(NAME, { algorithm })
    const checked = await checkCsr(`\r\n${pem.replaceAll('\n', '\r\n')}\r\n`, NAME)
    expect(checked.pem).toContain('-----BEGIN CERTIFICATE REQUEST-----')
    expect(checked.publicKey.length).toBeGreaterThan(40)
  })

  it.each(REFUSED_CSRS)('%s is refused as %s', async (_what, code, make) => {
    await expect(checkCsr(await make(NAME), NAME)).rejects.toMatchObject({ kind: 'invalid', code })
  })
})
