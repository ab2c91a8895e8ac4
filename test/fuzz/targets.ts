import type { OpenTarget } from './target.js'
import { config } from './targets/config.js'
import { ftp } from './targets/ftp.js'
import { https } from './targets/https.js'
import { journal } from './targets/journal.js'
import { json } from './targets/json.js'
import { message } from './targets/message.js'
import { operatorText } from './targets/operator-text.js'
import { pairing } from './targets/pairing.js'
import { part } from './targets/part.js'
import { poolCatalog } from './targets/pool-catalog.js'
import { poolLog } from './targets/pool-log.js'
import { poolPages } from './targets/pool-pages.js'
import { regions } from './targets/regions.js'
import { request } from './targets/request.js'
import { stateFiles } from './targets/state-files.js'
import { stateLog } from './targets/state-log.js'

/**
 * What reads bytes that may have been damaged, or made by somebody else.
 *
 * Not here, since they are C++ and of fixed size: the header of a segment and the region record as native code reads them
 * again (the same bytes as in `journal` and `regions`), and the messages of the keeper, which come over a socket of root's
 * own. Nor /proc and /sys.
 */
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
  request,
  'operator-text': operatorText,
  https,
  ftp,
  'state-files': stateFiles,
  'state-log': stateLog,
}
