import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import t from 'tap'
import { claimSocket } from '../../src/api/private-socket.js'
import { privateFolder } from './fake-api.js'

function listener(t: { teardown(handler: () => void): void }) {
  const server = net.createServer()
  t.teardown(() => server.close())
  return (at: string) => new Promise<void>((resolve) => server.listen(at, resolve))
}

t.test('the socket is private before it has its name, and nothing else is left in the folder', async (t) => {
  const folder = privateFolder(t)
  chmodSync(folder, 0o755)
  const socketPath = path.join(folder, 'agent.sock')
  const socket = await claimSocket(socketPath, async (at) => {
    t.notOk(existsSync(socketPath), 'it has no name yet')
    t.equal(lstatSync(path.dirname(at)).mode & 0o777, 0o700, 'it is bound where nobody else can reach it')
    await listener(t)(at)
  })
  t.ok(lstatSync(socketPath).isSocket())
  t.equal(lstatSync(socketPath).mode & 0o777, 0o600)
  t.same(readdirSync(folder), ['agent.sock'])
  await socket.remove()
  t.same(readdirSync(folder), [])
})

t.test('the socket of a dead agent is replaced', async (t) => {
  const folder = privateFolder(t)
  const socketPath = path.join(folder, 'agent.sock')
  const dead = net.createServer()
  await new Promise<void>((resolve) => dead.listen(path.join(folder, 'other'), resolve))
  // Closing unlinks the bound name only: the second one is left over, as after kill -9.
  linkSync(path.join(folder, 'other'), socketPath)
  await new Promise((resolve) => dead.close(resolve))
  t.ok(lstatSync(socketPath).isSocket())
  await claimSocket(socketPath, listener(t))
  t.equal(lstatSync(socketPath).mode & 0o777, 0o600)
})

t.test('the socket of a live agent is refused and goes on living', async (t) => {
  const socketPath = path.join(privateFolder(t), 'agent.sock')
  await claimSocket(socketPath, listener(t))
  await t.rejects(claimSocket(socketPath, listener(t)), { code: 'AGENT_RUNNING', hint: /Stop it first/ })
  await new Promise<void>((resolve, reject) => {
    const client = net.connect(socketPath, () => resolve(client.destroy() && undefined))
    client.on('error', reject)
  })
})

t.test('of two agents that start at once one gets the socket', async (t) => {
  const socketPath = path.join(privateFolder(t), 'agent.sock')
  const claims = await Promise.allSettled([0, 1, 2, 3].map(() => claimSocket(socketPath, listener(t))))
  t.equal(claims.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const claim of claims) if (claim.status === 'rejected') t.equal(claim.reason.code, 'AGENT_RUNNING')
})

t.test('a symlink, a file and a folder in its place are refused and left alone', async (t) => {
  const folder = privateFolder(t)
  const socketPath = path.join(folder, 'agent.sock')
  const make: Record<string, (at: string) => void> = {
    link: (at) => symlinkSync('/etc/hostname', at),
    dangling: (at) => symlinkSync(path.join(folder, 'nowhere'), at),
    file: (at) => writeFileSync(at, 'x'),
    folder: (at) => void mkdirSync(at),
  }
  for (const [name, plant] of Object.entries(make)) {
    plant(`${socketPath}-${name}`)
    await t.rejects(claimSocket(`${socketPath}-${name}`, listener(t)), { code: 'UNSAFE_SOCKET' }, name)
    t.ok(lstatSync(`${socketPath}-${name}`), `${name} is still there`)
  }
  t.notOk(existsSync(path.join(folder, 'nowhere')))
})

t.test('a socket that another user put there is refused', { skip: process.geteuid?.() !== 0 }, async (t) => {
  const socketPath = path.join(privateFolder(t), 'agent.sock')
  await listener(t)(socketPath)
  chownSync(socketPath, 65534, 65534)
  await t.rejects(claimSocket(socketPath, listener(t)), { code: 'UNSAFE_SOCKET', hint: /another user/ })
})

t.test('a folder in which others may replace the socket is refused', async (t) => {
  const folder = privateFolder(t)
  const socketPath = path.join(folder, 'agent.sock')
  chmodSync(folder, 0o777)
  await t.rejects(claimSocket(socketPath, listener(t)), { code: 'UNSAFE_SOCKET', object: folder })
  chmodSync(folder, 0o1777)
  await claimSocket(socketPath, listener(t))
})

t.test('a path that does not fit a socket address is refused with its limit', async (t) => {
  const socketPath = path.join(privateFolder(t), 'x'.repeat(100), 'agent.sock')
  await t.rejects(claimSocket(socketPath, listener(t)), { code: 'SOCKET_PATH_TOO_LONG', hint: /106 bytes/ })
})

t.test('a missing folder is refused with a hint', async (t) => {
  const socketPath = path.join(privateFolder(t), 'none', 'agent.sock')
  await t.rejects(claimSocket(socketPath, listener(t)), { code: 'SOCKET_FAILED', hint: /folder exists/ })
})

t.test('a name that meanwhile belongs to another agent is not removed', async (t) => {
  const folder = privateFolder(t)
  const socketPath = path.join(folder, 'agent.sock')
  const first = await claimSocket(socketPath, listener(t))
  renameSync(socketPath, path.join(folder, 'kept-alive'))
  await claimSocket(socketPath, listener(t))
  await first.remove()
  t.ok(existsSync(socketPath))
})
