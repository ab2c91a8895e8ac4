import type { OpenTarget } from './target.js'
import { config } from './targets/config.js'
import { journal } from './targets/journal.js'
import { json } from './targets/json.js'
import { message } from './targets/message.js'
import { pairing } from './targets/pairing.js'
import { part } from './targets/part.js'
import { poolCatalog } from './targets/pool-catalog.js'
import { poolLog } from './targets/pool-log.js'
import { poolPages } from './targets/pool-pages.js'
import { regions } from './targets/regions.js'

/** Everything that reads what may have been damaged, or made by somebody else. */
export const targets: Readonly<Record<string, OpenTarget>> = {
  journal,
  regions,
  part,
  message,
  pairing,
  'pool-pages': poolPages,
  'pool-catalog': poolCatalog,
  'pool-log': poolLog,
  json,
  config,
}
