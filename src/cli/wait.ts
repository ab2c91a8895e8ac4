/** Waiting for work that goes on in the agent, whether anybody waits for it or not. */
import type { StreamView, VolumeView } from '../api/agent-operations.js'
import type { Context } from './command.js'
import { CommandFailure } from './failure.js'
import { age, bytes, percent } from './text.js'

const POLL_MS = 500
/** How long one request waits at the agent: progress is drawn so often. */
const WAIT_MS = 1000
/** An agent that is replaced or restarted is back within this time. */
const AWAY_LIMIT_MS = 30_000
/** From the command to its first effect on the stream's state. */
const BEGIN_LIMIT_MS = 10_000

/** Until the stream is initialised. @throws CommandFailure when it cannot get there, INTERRUPTED on Ctrl-C */
export function waitForInitialize(context: Context, name: string): Promise<StreamView> {
  const startedMs = performance.now()
  return untilDone(context, streamWork(name), async () => {
    const stream = await context.agent.get<StreamView>('streams', name)
    const { initialize } = stream
    context.terminal.progress(
      initialize
        ? `${name}: initialising, ${bytes(initialize.doneBytes)} of ${bytes(initialize.totalBytes)} (${percent(initialize.doneBytes, initialize.totalBytes)}), ${bytes(stream.bytesPerSecond)}/s${stream.state === 'initializing' ? '' : `, ${stream.state}: ${stream.reason}`}`
        : `${name}: ${stream.state}, ${stream.reason}`,
    )
    refuseEnded(stream, 'stream initialize')
    if (stream.state === 'new' && performance.now() - startedMs > BEGIN_LIMIT_MS) {
      throw stopped(stream, 'stream initialize', 'the initialisation has not begun')
    }
    const done = stream.state === 'replicating' || (stream.state === 'waiting' && initialize === null)
    return done ? stream : await pause()
  })
}

/** Until the destination has applied the epoch. */
export function waitForEpoch(context: Context, name: string, epoch: number): Promise<StreamView> {
  return untilDone(context, streamWork(name), async () => {
    const { done, stream } = await context.agent.call<{ done: boolean; stream: StreamView }>({
      method: 'GET',
      path: ['streams', name, 'wait'],
      query: { epoch: String(epoch), timeoutMs: String(WAIT_MS) },
    })
    if (done) return stream
    refuseEnded(stream, 'stream flush')
    context.terminal.progress(
      `${name}: ${stream.state}, ${bytes(stream.waitingBytes)} waiting, oldest ${age(stream.oldestUnsentSeconds)}, ${bytes(stream.bytesPerSecond)}/s, epoch ${stream.epoch.applied} of ${epoch} applied`,
    )
    return undefined
  })
}

/** Until both sides are compared, and what differed is sent again; however it ends. */
export function waitForVerify(context: Context, { name }: StreamView): Promise<StreamView> {
  return untilDone(context, streamWork(name), async () => {
    const stream = await context.agent.get<StreamView>('streams', name)
    const { verify } = stream
    if (verify === null || (verify.state !== 'comparing' && verify.state !== 'repairing')) return stream
    refuseEnded(stream, 'stream verify')
    const differed = verify.mismatchedBytes > 0 ? `, ${bytes(verify.mismatchedBytes)} differ` : ''
    context.terminal.progress(
      `${name}: ${verify.state}, ${bytes(verify.doneBytes)} of ${bytes(verify.totalBytes)} (${percent(verify.doneBytes, verify.totalBytes)})${differed}${verify.reason ? `, ${verify.reason}` : ''}`,
    )
    return pause()
  })
}

/** Until the move of its source buffer, or the way back of one that was called off, is over. */
export function waitForBuffer(context: Context, { name, buffer: begun }: StreamView): Promise<StreamView> {
  return untilDone(context, streamWork(name), async () => {
    const stream = await context.agent.get<StreamView>('streams', name)
    const { move, directory } = stream.buffer
    if (move === null) {
      if (directory === begun.directory) return stream
      throw new CommandFailure({
        code: 'BUFFER_MOVE_ABORTED',
        op: 'buffer move',
        object: name,
        message: `the buffer of ${name} is in ${directory}: the move to ${begun.directory} was called off`,
        hint: 'See tidemark events.',
      })
    }
    context.terminal.progress(
      `${name}: moving the buffer, ${bytes(move.doneBytes)} of ${bytes(move.totalBytes)} (${percent(move.doneBytes, move.totalBytes)})${move.trouble === null ? '' : `, waiting: ${move.trouble}`}`,
    )
    return pause()
  })
}

/** Until the volume is a complete image. @throws CommandFailure when its copy was interrupted, INTERRUPTED on Ctrl-C */
export function waitForImage(context: Context, name: string): Promise<VolumeView> {
  const work = { kind: 'volume', name, follow: `tidemark volume show ${name}` }
  return untilDone(context, work, async () => {
    const volume = await context.agent.get<VolumeView>('volumes', name)
    const { image } = volume
    if (image === null || image.complete) return volume
    if (image.progress === null) {
      throw new CommandFailure({
        code: 'IMAGE_INCOMPLETE',
        op: 'clone',
        object: name,
        message: `clone ${name}: ${image.reason}`,
        hint: `See tidemark events. To copy what is missing: tidemark clone refresh ${name}`,
      })
    }
    const { doneBytes, totalBytes } = image.progress
    context.terminal.progress(
      `${name}: copying, ${bytes(doneBytes)} of ${bytes(totalBytes)} (${percent(doneBytes, totalBytes)})`,
    )
    return pause()
  })
}

/** What goes on in the agent, and the command that shows how far it is. */
interface Work {
  readonly kind: string
  readonly name: string
  readonly follow: string
}

const streamWork = (name: string): Work => ({ kind: 'stream', name, follow: `tidemark stream status ${name}` })

async function untilDone<T>({ terminal }: Context, work: Work, step: () => Promise<T | undefined>): Promise<T> {
  let awaySinceMs: number | undefined
  const interrupt = new AbortController()
  const interrupted = new Promise<never>((_, reject) => {
    interrupt.signal.addEventListener('abort', () => reject(interruption(work)))
  })
  // Whoever is racing it sees the rejection; nobody may be at this moment.
  interrupted.catch(() => {})
  const onInterrupt = () => interrupt.abort()
  process.once('SIGINT', onInterrupt)
  try {
    for (;;) {
      try {
        const result = await Promise.race([step(), interrupted])
        if (result !== undefined) return result
        awaySinceMs = undefined
      } catch (error) {
        if (!(error instanceof CommandFailure) || !['AGENT_NOT_RUNNING', 'AGENT_LOST'].includes(error.detail.code))
          throw error
        awaySinceMs ??= performance.now()
        if (performance.now() - awaySinceMs > AWAY_LIMIT_MS) throw error
        terminal.progress(`${work.name}: the agent is away; waiting for it to come back`)
        await Promise.race([pause(), interrupted])
      }
    }
  } finally {
    process.removeListener('SIGINT', onInterrupt)
    terminal.clearProgress()
  }
}

function pause(): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, POLL_MS, undefined))
}

/** States that do not change by waiting. */
function refuseEnded(stream: StreamView, op: string): void {
  if (stream.state === 'failed' || stream.state === 'diverged')
    throw stopped(stream, op, `${stream.state}: ${stream.reason}`)
  if (stream.state === 'paused')
    throw stopped(stream, op, 'the stream is paused', `Resume it: tidemark stream resume ${stream.name}`)
}

function stopped(stream: StreamView, op: string, what: string, hint?: string): CommandFailure {
  return new CommandFailure({
    code: `STREAM_${stream.state.toUpperCase()}`,
    op,
    object: stream.name,
    message: `${op} ${stream.name}: ${what}`,
    hint: hint ?? `See tidemark stream status ${stream.name} and tidemark events.`,
  })
}

function interruption({ kind, name, follow }: Work): CommandFailure {
  return new CommandFailure({
    code: 'INTERRUPTED',
    op: 'wait',
    object: name,
    message: `${kind} ${name}: stopped waiting; the work goes on in the agent`,
    hint: `Follow it with ${follow}`,
    retry: 'later',
  })
}
