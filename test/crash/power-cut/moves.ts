import { readdirSync, renameSync, writeFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { StreamView } from '../../../src/api/agent-operations.js'
import { delay } from '../../fixtures/agent.js'
import { type Scene, untilStream } from './courses.js'

/** Files that wait in the buffer before each move, at the least. */
const filesAtLeast = 15
/** The other file system has room for so many more: a move into it comes to a stand in its middle. */
const filesWithRoom = 8
/** What a power cut behind a move may still take is looked at for so long. */
const afterwardsMs = 60
const lookMs = 4
/** As in courses.ts. */
const limitMs = 300_000

type Holds = (view: StreamView) => boolean

/**
 * The link ends, so that files collect in the source buffer, and it moves: twice in a row, to another file system, and back;
 * to one until no inode is left there, and it is called off; home, while the files are sent.
 */
export async function runMoves(scene: Scene): Promise<void> {
  const { agent, device, stream } = scene
  const { name, between } = stream!
  const other = device.second!.mountPoint
  const home = (await agent.streamStatus(name)).buffer.directory
  const end: Holds = ({ buffer }) => buffer.move === null
  renameSync(between, `${between}-away`)
  await move(scene, 'move', join(device.mountPoint, 'first'), end)
  await move(scene, 'and again', join(device.mountPoint, 'second'), end)
  await move(scene, 'to another file system', join(other, 'first'), end)
  await move(scene, 'and back', join(device.mountPoint, 'third'), end)
  await useInodes(other)
  await move(scene, 'to a full one', join(other, 'second'), ({ buffer }) => /ENOSPC/.test(buffer.move?.trouble ?? ''))
  await follow(scene, 'called off', ['abort', name], ({ buffer }) => buffer.move?.returning !== false, end)
  renameSync(`${between}-away`, between)
  await move(scene, 'home while files are sent', join(home, '..', '..'), end)
  // What is cut from here on is in no cut; the far side has all that is.
  await agent.cli('stream', 'flush', name, '--wait')
}

async function move(scene: Scene, what: string, directory: string, until: Holds): Promise<void> {
  const { agent, stream } = scene
  const { name } = stream!
  await untilStream(scene, ({ buffer }) => readdirSync(buffer.directory).length >= filesAtLeast)
  const { directory: before } = (await agent.streamStatus(name)).buffer
  await follow(scene, what, ['move', name, directory], ({ buffer }) => buffer.directory !== before, until)
}

/** A phase that begins right before what the command asks for. */
async function follow(
  { agent, device, stream, phases }: Scene,
  what: string,
  command: readonly string[],
  hasBegun: Holds,
  until: Holds,
): Promise<void> {
  const asked = agent.cli('buffer', ...command)
  const deadline = performance.now() + limitMs
  let from = await device.position()
  for (let begun = false; ; await delay(lookMs)) {
    const position = await device.position()
    const view = await agent.streamStatus(stream!.name)
    begun ||= hasBegun(view)
    if (begun && until(view)) break
    if (!begun) from = position
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms: ${JSON.stringify(view)}`)
  }
  await asked
  await delay(afterwardsMs)
  phases.push({ name: what, from, to: await device.position() })
}

async function useInodes(mountPoint: string): Promise<void> {
  const { ffree } = await statfs(mountPoint)
  for (let left = ffree; left > filesWithRoom; left--) writeFileSync(join(mountPoint, `filler-${left}`), '')
}
