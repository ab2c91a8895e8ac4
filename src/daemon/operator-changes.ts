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
    return this.#inTurn(action, (done) => done)
  }

  /**
   * The same for an action that a disk may hold up for ever, and that nothing which is done beside it can harm: who asked
   * for it is answered, and the turn given away, after a while.
   * @throws StorageError AGENT_BUSY as of run(), CHANGE_PENDING: it goes on
   */
  runBounded<T>(action: () => Promise<T>): Promise<T> {
    return this.#inTurn(action, (done, reject) => within(done, this.#waitMs, pending).catch(reject))
  }

  #inTurn<T>(
    action: () => Promise<T>,
    lasts: (done: Promise<void>, reject: (error: unknown) => void) => Promise<void>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      let refused = false
      const refuse = (): void => {
        refused = true
        reject(busy())
      }
      const timer = setTimeout(refuse, this.#waitMs)
      void this.#turns.run(async () => {
        clearTimeout(timer)
        if (!refused) await lasts(action().then(resolve, reject), reject)
      })
    })
  }
}

/**
 * Of one stream, which no other one's can harm: a change that is asked for while another one is under way waits for it, also
 * when whoever asked for that had its answer.
 */
export class StreamChanges {
  readonly #waitMs: number
  readonly #underWay = new Map<string, Promise<unknown>>()

  constructor(waitMs = waitLimitMs) {
    this.#waitMs = waitMs
  }

  /** @throws StorageError AGENT_BUSY: the action was not begun, and will not be; CHANGE_PENDING: it goes on */
  async run<T>(stream: string, action: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + this.#waitMs
    for (let before = this.#underWay.get(stream); before; before = this.#underWay.get(stream)) {
      await within(before, deadline - performance.now(), busy)
    }
    const done = action()
    const over = done.catch(() => undefined).finally(() => this.#underWay.delete(stream))
    this.#underWay.set(stream, over)
    return within(done, this.#waitMs, pending)
  }
}

async function within<T>(done: Promise<T>, limitMs: number, late: () => StorageError): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(late()), limitMs)
  })
  return Promise.race([done, over]).finally(() => clearTimeout(timer))
}

function busy(): StorageError {
  return new StorageError('AGENT_BUSY', {
    op: 'agent',
    object: 'change',
    retry: 'later',
    hint: 'Another change has been under way all the time. Look for a disk of this machine that does not answer (tidemark stream status, dmesg), then try again.',
  })
}

function pending(): StorageError {
  return new StorageError('CHANGE_PENDING', {
    op: 'agent',
    object: 'change',
    retry: 'later',
    hint: 'It has begun, and ends when the disk it waits for answers. Look for one that does not (tidemark stream status, dmesg), then look again, or ask for it again.',
  })
}
