import type { VolumeView } from '../../api/agent-operations.js'
import type { Command, Context } from '../command.js'
import { parseTarget } from '../target.js'
import { bytes } from '../text.js'
import { waitForImage } from '../wait.js'

export const cloneCommands: Command[] = [
  {
    name: 'clone create',
    arguments: ['VOLUME', 'NAME'],
    options: [
      { flags: '--full', summary: 'a complete image: a copy that shares nothing' },
      { flags: '--wait', summary: 'with --full: return when everything is copied' },
    ],
    usage: 'VOLUME[@SNAPSHOT] NAME [--full] [--wait]',
    summary: 'Make a volume from a snapshot, or from the volume as it is now. Without --full it is there at once.',
    example: 'tidemark clone create db@monday test',
    run: async (context, typed) => {
      const { volume, snapshot } = parseTarget(typed.argument('VOLUME'))
      const made = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['clones'],
        body: {
          name: typed.argument('NAME'),
          volume,
          ...(snapshot === undefined ? {} : { snapshot }),
          ...(typed.flag('full') ? { full: true } : {}),
        },
      })
      await report(context, typed.flag('wait'), made)
    },
  },
  {
    name: 'clone refresh',
    arguments: ['NAME'],
    options: [
      { flags: '--from SNAPSHOT', summary: 'of the volume it follows (default: that volume as it is now)' },
      { flags: '--wait', summary: 'return when everything is copied' },
    ],
    usage: 'NAME [--from SNAPSHOT] [--wait]',
    summary: 'Make a complete image equal to its source again; only what changed on either is copied.',
    example: 'tidemark clone refresh copy --wait',
    run: async (context, typed) => {
      const from = typed.option('from')
      const image = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['clones', typed.argument('NAME'), 'refresh'],
        body: from === undefined ? {} : { from },
      })
      await report(context, typed.flag('wait'), image)
    },
  },
]

async function report(context: Context, wait: boolean, made: VolumeView): Promise<void> {
  const volume = wait && made.image ? await waitForImage(context, made.name) : made
  const { name, image, origin, sizeBytes } = volume
  context.terminal.result(volume, [
    image === null
      ? `Volume ${name} is a clone of ${origin}, ${bytes(sizeBytes)}. Next: tidemark volume attach ${name}`
      : image.complete
        ? `Volume ${name} is a complete image of ${image.volume}, ${bytes(sizeBytes)}. Next: tidemark volume attach ${name}`
        : `Volume ${name} becomes a complete image of ${image.volume}: ${image.reason}. Follow it: tidemark volume show ${name}`,
  ])
}
