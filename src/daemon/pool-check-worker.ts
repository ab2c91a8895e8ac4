import { serveCalls } from '../block/worker-calls.js'
import { checkPoolOffline } from './pool-check.js'

serveCalls({ check: checkPoolOffline })
