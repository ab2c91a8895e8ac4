import { limitRows } from './rows/limits.js'
import { peerRows } from './rows/peers.js'
import type { Row } from './rows/row.js'
import { volumeRows } from './rows/volumes.js'

/** What is compared, in the order it is printed. */
export const rows: readonly Row[] = [...limitRows, ...volumeRows, ...peerRows]
