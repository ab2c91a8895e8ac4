import t from 'tap'
import type { AgentEvent } from '../../src/block/event-log.js'
import { settleTakenBack } from '../../src/daemon/attachments.js'

t.test('of what was taken back and not attached, hosts wait for what is wanted, and the rest is ended', async (t) => {
  const volumes = {
    attached: () => [{ name: 'served' }],
    wanted: () => ['served', 'stuck', 'db@monday'].map((name) => ({ name, readOnly: false })),
  } as unknown as Parameters<typeof settleTakenBack>[1]
  const ended: string[] = []
  const intercept = {
    giveUpKept: async (file: string) => {
      ended.push(file)
      if (file.endsWith('odd')) throw new Error('it stays')
    },
  }
  const told: Pick<AgentEvent, 'code' | 'object'>[] = []
  const files = ['served', 'stuck', 'db@monday', 'odd', 'gone'].map((name) => `/state/run/${name}`)
  await settleTakenBack(files, volumes, intercept, ({ code, object }) => told.push({ code, object }))
  t.same(ended, ['/state/run/odd', '/state/run/gone'])
  t.same(told, [
    { code: 'HOST_WAITS', object: 'stuck' },
    { code: 'HOST_WAITS', object: 'db@monday' },
    { code: 'LEFTOVER_KEPT', object: 'odd' },
  ])
})
