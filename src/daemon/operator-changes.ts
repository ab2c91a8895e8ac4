import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'

const waitLimitMs = 120_000

/**
 * What makes, links or removes objects happens one at a time: no object is removed while another is tied to it. One that a
 * disk holds up holds up the others, but none of them waits without an end, and without knowing why.
 */
export class OperatorChanges {
  readonly #turns = new Exclusive()
  readonly #waitMs: number

  /** @param waitMs whoever had no turn by then is refused */
  constructor(waitMs = waitLimitMs) {
    this.#waitMs = waitMs
  }

  /** @throws StorageError AGENT_BUSY: the action was not begun, and will not be */
  run<T>(action: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let refused = false
      const refuse = (): void => {
        refused = true
        reject(busy())
      }
      const timer = setTimeout(refuse, this.#waitMs)
      void this.#turns.run(async () => {
        clearTimeout(timer)
        if (!refused) await action().then(resolve, reject)
      })
    })
  }
}

function busy(): StorageError {
  return new StorageError('AGENT_BUSY', {
    op: 'agent',
    object: 'change',
    retry: 'later',
    hint: 'Another change has been under way all the time. Look for a disk of this machine that does not answer (tidemark stream status, dmesg), then try again.',
  })
}
