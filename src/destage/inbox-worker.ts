/** The process that touches one inbox: see InboxProcess. */
import { stat } from 'node:fs/promises'
import { serveCalls } from '../block/worker-calls.js'
import { Inbox } from './inbox.js'
import { listInbox } from './inbox-listing.js'

/** One call; what is not given to it means nothing to it. */
export interface InboxCall {
  readonly directory: string
  readonly streamId?: string
  readonly name?: string
  /** A place of the agent's own. */
  readonly to?: string
  readonly sealed?: Uint8Array
}

/** Hints within this time are one: whoever writes a file there gives many. */
const gatherMs = 5

let inbox: Inbox | undefined
let tell: (streamId: string | null) => void = () => undefined
const changed = new Set<string | null>()

function noteChange(streamId: string | null): void {
  if (changed.size === 0) {
    setTimeout(() => {
      for (const each of changed) tell(each)
      changed.clear()
    }, gatherMs)
  }
  changed.add(streamId)
}

function inboxAt(directory: string): Inbox {
  inbox ??= new Inbox(directory, noteChange)
  return inbox
}

type Given = Required<InboxCall>

serveCalls(
  {},
  {
    isFolder: (directory: string) =>
      stat(directory).then(
        (facts) => facts.isDirectory(),
        () => false,
      ),
    watch: (_directory: string, onChange: typeof tell) => {
      tell = onChange
      return new Promise<never>(() => undefined)
    },
    streams: ({ directory }: Given) => inboxAt(directory).streams(),
    names: ({ directory, streamId }: Given) =>
      inboxAt(directory).names(streamId, async (folder) => (await listInbox(folder))!),
    take: ({ directory, streamId, name, to }: Given, onProgress: (bytes: number) => void) =>
      inboxAt(directory).take(streamId, name, to, onProgress),
    remove: ({ directory, streamId, name }: Given) => inboxAt(directory).remove(streamId, name),
    putAside: ({ directory, streamId, name, to }: Given) => inboxAt(directory).putAside(streamId, name, to),
    acknowledge: ({ directory, streamId, sealed }: Given) =>
      inboxAt(directory).acknowledge(streamId, Buffer.from(sealed)),
  },
)
