import assert from 'node:assert/strict'
import type { WorkerCalls } from './worker-calls.js'

export interface Lease {
  readonly worker: WorkerCalls
  /** Once. Resolves when a worker that nobody has any more has ended. */
  giveBack(): Promise<void>
}

/** One worker for all who need it at the same time: made for the first, ended when the last gives it back. */
export class LentWorker {
  readonly #make: () => WorkerCalls
  #lent: { readonly worker: WorkerCalls; users: number } | undefined

  constructor(make: () => WorkerCalls) {
    this.#make = make
  }

  lend(): Lease {
    this.#lent ??= { worker: this.#make(), users: 0 }
    const lent = this.#lent
    lent.users += 1
    let isBack = false
    return {
      worker: lent.worker,
      giveBack: async () => {
        assert(!isBack, 'a worker is given back twice')
        isBack = true
        lent.users -= 1
        if (lent.users > 0) return
        this.#lent = undefined
        await lent.worker.close()
      },
    }
  }
}
