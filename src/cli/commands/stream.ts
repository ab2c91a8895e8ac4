import type { StreamView } from '../../api/agent-operations.js'
import type { Command, Context, Option, Typed } from '../command.js'
import { CommandFailure } from '../failure.js'
import { age, bytes, facts, percent, table } from '../text.js'
import { waitForEpoch, waitForInitialize, waitForVerify } from '../wait.js'

const post = ({ agent }: Context, typed: Typed, action: string) =>
  agent.call<StreamView>({ method: 'POST', path: ['streams', typed.argument('NAME'), action] })

const policyOption: Option = {
  flags: '--policy degrade|strict',
  summary: 'when the journal is full: hosts go on and regions are mapped (default), or they wait, then get errors',
}
const discardJournalOption: Option = {
  flags: '--discard-journal',
  summary: 'what cannot be replayed of its journal is given up, with flushed writes that are in it alone',
}
const discardJournal = (typed: Typed) => (typed.flag('discard-journal') ? { discardJournal: 'true' } : {})
const waitOption: Option = { flags: '--wait TIME', summary: 'with strict: how long a write waits (default: 30s)' }

function policyOf(typed: Typed): { policy?: string; wait?: string } {
  const policy = typed.option('policy')
  const wait = typed.option('wait')
  return { ...(policy === undefined ? {} : { policy }), ...(wait === undefined ? {} : { wait }) }
}

export const streamCommands: Command[] = [
  {
    name: 'stream create',
    arguments: ['NAME'],
    options: [
      { flags: '--volume V', summary: 'a volume of the stream; repeat it for a consistency group', kind: 'repeatable' },
      { flags: '--destination D', summary: 'where it goes', kind: 'required' },
      { flags: '--epoch TIME', summary: 'how often a recovery point is cut while there are writes (default: 1s)' },
      policyOption,
      waitOption,
    ],
    usage: 'NAME --volume V [--volume W] --destination D [--epoch TIME] [--policy degrade|strict] [--wait TIME]',
    summary: 'Mirror one volume, or several as one consistency group, to a destination.',
    example: 'tidemark stream create gold --volume data --volume log --destination backup --epoch 1s',
    run: async ({ agent, terminal }, typed) => {
      const epoch = typed.option('epoch')
      const stream = await agent.call<StreamView>({
        method: 'POST',
        path: ['streams'],
        body: {
          name: typed.argument('NAME'),
          volumes: typed.options('volume'),
          destination: typed.option('destination'),
          ...(epoch === undefined ? {} : { epoch }),
          ...policyOf(typed),
        },
      })
      const { sharedDisk, directory } = stream.buffer
      terminal.result(stream, [
        `Stream ${stream.name}: ${stream.volumes.join(', ')} to ${stream.destination}. Next: tidemark stream initialize ${stream.name} --wait`,
        ...(sharedDisk === null ? [] : [`Warning: its buffer ${directory} and a volume share the disk ${sharedDisk}.`]),
      ])
    },
  },
  {
    name: 'stream initialize',
    arguments: ['NAME'],
    options: [{ flags: '--wait', summary: 'return when the first copy is complete' }, discardJournalOption],
    usage: 'NAME [--wait] [--discard-journal]',
    summary: 'Copy the volumes as they are, while they are in use; afterwards only writes cross.',
    example: 'tidemark stream initialize gold --wait',
    run: async (context, typed) => {
      const path = ['streams', typed.argument('NAME'), 'initialize']
      const started = await context.agent.call<StreamView>({ method: 'POST', path, query: discardJournal(typed) })
      const stream = typed.flag('wait') ? await waitForInitialize(context, started.name) : started
      context.terminal.result(stream, [`Stream ${stream.name} is ${stream.state}: ${stream.reason}`])
    },
  },
  {
    name: 'stream status',
    arguments: ['[NAME]'],
    options: [],
    usage: '[NAME]',
    summary: 'Show one stream in full, or all of them in a table.',
    example: 'tidemark stream status gold',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.optionalArgument('NAME')
      if (name === undefined) {
        const streams = await agent.get<StreamView[]>('streams')
        terminal.result(streams, streamTable(streams))
      } else {
        const stream = await agent.get<StreamView>('streams', name)
        terminal.result(stream, streamFacts(stream))
      }
    },
  },
  {
    name: 'stream flush',
    arguments: ['NAME'],
    options: [{ flags: '--wait', summary: 'return when everything written before is applied at the destination' }],
    usage: 'NAME [--wait]',
    summary: 'Cut a recovery point now and send it.',
    example: 'tidemark stream flush gold --wait',
    run: async (context, typed) => {
      const name = typed.argument('NAME')
      const cut = await context.agent.call<{ epoch: number; lsn: string }>({
        method: 'POST',
        path: ['streams', name, 'flush'],
      })
      if (!typed.flag('wait')) {
        context.terminal.result(cut, [`Stream ${name}: epoch ${cut.epoch} is closed at LSN ${cut.lsn}`])
        return
      }
      const stream = await waitForEpoch(context, name, cut.epoch)
      context.terminal.result({ ...cut, done: true, stream }, [
        `Stream ${name}: everything up to epoch ${cut.epoch} (LSN ${cut.lsn}) is applied at ${stream.destination}`,
      ])
    },
  },
  {
    name: 'stream verify',
    arguments: ['NAME'],
    options: [
      { flags: '--no-repair', summary: 'only report what differs' },
      { flags: '--abort', summary: 'end the comparison that goes on' },
      { flags: '--wait', summary: 'return when all is compared, and what differed is sent again' },
    ],
    usage: 'NAME [--no-repair] [--abort] [--wait]',
    summary: 'Compare the copy at the destination with the volumes, in use, and send again what differs.',
    example: 'tidemark stream verify gold --wait',
    run: verifyStream,
  },
  {
    name: 'stream set',
    arguments: ['NAME'],
    options: [policyOption, waitOption],
    usage: 'NAME [--policy degrade|strict] [--wait TIME]',
    summary: 'Change what hosts see when the journal is full; at once, also for those that wait.',
    example: 'tidemark stream set gold --policy degrade',
    run: async ({ agent, terminal }, typed) => {
      const path = ['streams', typed.argument('NAME'), 'set']
      const stream = await agent.call<StreamView>({ method: 'POST', path, body: policyOf(typed) })
      terminal.result(stream, [`Stream ${stream.name}: policy ${policyText(stream)}`])
    },
  },
  {
    name: 'stream pause',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Stop sending; writes go on and collect.',
    example: 'tidemark stream pause gold',
    run: async (context, typed) => {
      const stream = await post(context, typed, 'pause')
      context.terminal.result(stream, [
        `Stream ${stream.name} is paused; writes collect. Go on: tidemark stream resume ${stream.name}`,
      ])
    },
  },
  {
    name: 'stream resume',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Go on sending.',
    example: 'tidemark stream resume gold',
    run: async (context, typed) => {
      const stream = await post(context, typed, 'resume')
      context.terminal.result(stream, [`Stream ${stream.name} is ${stream.state}: ${stream.reason}`])
    },
  },
  {
    name: 'stream remove',
    arguments: ['NAME'],
    options: [discardJournalOption],
    usage: 'NAME [--discard-journal]',
    summary: 'Forget the stream; the volumes and the copy at the destination stay.',
    example: 'tidemark stream remove gold',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      await agent.call({ method: 'DELETE', path: ['streams', name], query: discardJournal(typed) })
      terminal.result({ name, removed: true }, [
        `Stream ${name} is forgotten. Its volumes and the copy at the destination stay; a new stream begins with a new first copy.`,
      ])
    },
  },
]

async function verifyStream(context: Context, typed: Typed): Promise<void> {
  const name = typed.argument('NAME')
  if (typed.flag('abort')) {
    const stream = await context.agent.call<StreamView>({ method: 'POST', path: ['streams', name, 'verify', 'abort'] })
    context.terminal.result(stream, [`Stream ${name}: ${verifyText(stream)}`])
    return
  }
  const path = ['streams', name, 'verify']
  const begun = await context.agent.call<StreamView>({
    method: 'POST',
    path,
    body: { repair: !typed.flag('no-repair') },
  })
  const stream = typed.flag('wait') ? await waitForVerify(context, begun) : begun
  const mismatches = stream.verify?.mismatches ?? []
  context.terminal.result(stream, [
    ...mismatches.map(({ volume, offset, lengthBytes }) => `differed: ${volume}, ${lengthBytes} bytes at ${offset}`),
    `Stream ${name}: ${verifyText(stream)}${typed.flag('wait') ? '' : `. Follow it: tidemark stream status ${name}`}`,
  ])
  if (typed.flag('wait')) refuseUnequal(stream)
}

function refuseUnequal({ name, verify }: StreamView): void {
  if (verify?.state === 'equal' || verify?.state === 'repaired') return
  throw new CommandFailure({
    code: verify?.state === 'differs' ? 'FAR_SIDE_DIFFERS' : 'VERIFY_INCOMPLETE',
    op: 'stream verify',
    object: name,
    message: `stream verify ${name}: ${verify?.state ?? 'it is gone'}${verify?.reason ? `, ${verify.reason}` : ''}`,
    hint:
      verify?.state === 'differs'
        ? `Check the disks of both sides. To send again what differs: tidemark stream verify ${name}`
        : `See tidemark stream status ${name} and tidemark events.`,
  })
}

function verifyText({ verify }: StreamView): string {
  if (!verify) return 'never compared'
  const { state, reason, doneBytes, totalBytes, mismatchedBytes, busyBytes } = verify
  const done = `${bytes(doneBytes)} of ${bytes(totalBytes)} compared (${percent(doneBytes, totalBytes)})`
  const differed = mismatchedBytes > 0 ? `, ${bytes(mismatchedBytes)} differed` : ''
  const busy = busyBytes > 0 ? `, ${bytes(busyBytes)} always being written and not compared` : ''
  return `${state}: ${done}${differed}${busy}${reason ? `; ${reason}` : ''}`
}

function policyText({ policy, waitMs }: StreamView): string {
  return policy === 'strict' ? `strict: when the journal is full writes wait ${age(waitMs / 1000)}, then fail` : policy
}

function caughtUp({ caughtUpInSeconds }: StreamView): string {
  if (caughtUpInSeconds === null) return 'not to be foreseen'
  return caughtUpInSeconds === 0 ? 'now' : `in about ${age(caughtUpInSeconds)}`
}

function bufferFacts({ buffer }: StreamView): string {
  const { directory, usedBytes, limitBytes, fullInSeconds, sharedDisk } = buffer
  const full = fullInSeconds === null ? '' : `, full in about ${age(fullInSeconds)}`
  const shared = sharedDisk === null ? '' : `; shares the disk ${sharedDisk} with a volume`
  return `${bytes(usedBytes)} of ${bytes(limitBytes)}${full}; in ${directory}${shared}`
}

function moveFacts({ buffer: { move } }: StreamView): [string, string][] {
  if (move === null) return []
  const { from, doneBytes, totalBytes, returning, trouble } = move
  const done = `${bytes(doneBytes)} of ${bytes(totalBytes)} (${percent(doneBytes, totalBytes)})`
  const waits = trouble === null ? '' : `; waits: ${trouble}`
  return [[returning ? 'Buffer goes back' : 'Buffer moves', `${done} from ${from}${waits}`]]
}

function streamTable(streams: readonly StreamView[]): string[] {
  if (streams.length === 0)
    return ['There are no streams. Make one: tidemark stream create NAME --volume V --destination D']
  return table([
    ['NAME', 'STATE', 'WAITING', 'OLDEST', 'RATE', 'SENT', 'DESTINATION', 'VOLUMES', 'REASON'],
    ...streams.map((stream) => [
      stream.name,
      stream.state,
      bytes(stream.waitingBytes),
      age(stream.oldestUnsentSeconds),
      `${bytes(stream.bytesPerSecond)}/s`,
      bytes(stream.counters.sentBytes),
      stream.destination,
      stream.volumes.join(','),
      stream.reason,
    ]),
  ])
}

function streamFacts(stream: StreamView): string[] {
  const { counters, initialize, lsn, epoch } = stream
  const progress: [string, string][] = initialize
    ? [
        [
          'First copy',
          `${bytes(initialize.doneBytes)} of ${bytes(initialize.totalBytes)} (${percent(initialize.doneBytes, initialize.totalBytes)})`,
        ],
      ]
    : []
  const { catchUp } = stream
  if (catchUp && !initialize) {
    progress.push([
      'To catch up',
      `${bytes(catchUp.doneBytes)} of ${bytes(catchUp.totalBytes)} (${percent(catchUp.doneBytes, catchUp.totalBytes)})`,
    ])
  }
  return facts([
    ['Stream', `${stream.name} (${stream.id})`],
    ['State', `${stream.state}: ${stream.reason}`],
    ['Volumes', stream.volumes.join(', ')],
    ['Destination', stream.destination],
    ['Policy', policyText(stream)],
    ...progress,
    ['Waiting', bytes(stream.waitingBytes)],
    ['Caught up', caughtUp(stream)],
    ['Source buffer', bufferFacts(stream)],
    ...moveFacts(stream),
    ...(stream.verify ? [['Comparison', verifyText(stream)] as [string, string]] : []),
    ['Oldest unsent', age(stream.oldestUnsentSeconds)],
    ['Rate', `${bytes(stream.bytesPerSecond)}/s`],
    ['LSN', `journal ${lsn.journal}, sent ${lsn.sent}, applied ${lsn.applied}`],
    [
      'Epoch',
      `cut ${epoch.cut}, sent ${epoch.sent}, applied ${epoch.applied} (every ${age(stream.epochMs / 1000)}, generation ${stream.generation})`,
    ],
    ['Written by hosts', bytes(counters.rawBytes)],
    ['Folded away', bytes(counters.foldedBytes)],
    ['Identical, skipped', bytes(counters.identicalBytes)],
    ['Compressed to', bytes(counters.compressedBytes)],
    ['Sent', bytes(counters.sentBytes)],
  ])
}
