import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ACCESS_PAGE, accessPage } from './access-page'

writeFileSync(join(__dirname, '../../../..', ACCESS_PAGE), accessPage())
