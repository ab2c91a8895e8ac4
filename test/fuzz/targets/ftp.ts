import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { asFault } from '../../../src/transport/ftp-faults.js'
import { FtpSession } from '../../../src/transport/ftp-session.js'
import type { FtpEndpoint } from '../../../src/transport/pairing.js'
import { isRemoteName } from '../../../src/transport/remote-name.js'
import type { OpenTarget } from '../target.js'

const never = new AbortController().signal
const timeouts = { idleMs: 60_000, operationMs: 60_000 }
/** Longer than this nobody waits for the end of a reply that has none. */
const silenceMs = 5
const honest: Readonly<Record<string, string>> = {
  USER: '331 Password',
  PASS: '230 In',
  PWD: '257 "/home" is it',
  FEAT: '211 None',
  SIZE: '213 1048576',
}

const listings = [
  '-rw-r--r-- 1 u g 1048576 Jan 01 2020 acknowledgement\r\ndrwxr-xr-x 2 u g 4096 Jan 01 2020 folder\r\n',
  'type=file;size=5;modify=20200101000000; name\r\ntype=cdir; .\r\n',
  '01-01-20 01:00PM <DIR> folder\r\n01-01-20 01:00PM 5 name\r\n',
]
const replies = ['220 Hello', ...Array.from({ length: 9 }, () => '200 Fine'), '257 "/" is it', '250 In', '213 5']

/**
 * First byte: 0 a listing of an honest server, else what a server answers, one answer after the other, with a NUL between
 * them. Where its data connections are it always says truly: they lead nowhere else on this machine.
 */
export const ftp: OpenTarget = async () => {
  let input: Buffer = Buffer.alloc(0)
  const data = await listen((socket) => socket.end(input[0] === 0 ? input.subarray(1) : listings[0]!))
  const control = await listen((socket) => converse(socket, input, data))
  const endpoint: FtpEndpoint = {
    ...{ kind: 'ftp', host: '127.0.0.1', port: control },
    ...{ user: 'u', password: 'p', directory: 'd', tls: 'none' },
  }
  return {
    words: ['\r\n', '227 (127,0,0,1,0,0)', '229 (|||1|)', '211-', '421 ', '550 ', ' -> ', '\0', 'size=', '<DIR>'].map(
      (text) => Buffer.from(text),
    ),
    seeds: () => [
      ...listings.map((text) => Buffer.from(`\0${text}`)),
      Buffer.from(`\x01${replies.join('\0')}`),
      Buffer.from(`\x01${['220-Hello', 'you', '220 there'].join('\r\n')}\0${replies.slice(1).join('\0')}`),
    ],
    async run(given) {
      input = given
      try {
        const session = await FtpSession.open(endpoint, timeouts, never)
        try {
          assert(session.base.startsWith('/'))
          const size = await session.size('name', never)
          assert(size === undefined || (Number.isSafeInteger(size) && size >= 0))
          const files = await session.list('/d', never)
          assert(files.every(({ name, lengthBytes }) => isRemoteName(name) && Number.isSafeInteger(lengthBytes)))
        } finally {
          session.close()
        }
      } catch (error) {
        throw asFault(error, 'list', 'fuzzed')
      }
    },
  }
}

function converse(socket: net.Socket, input: Buffer, dataPort: number): void {
  const pieces = input[0] === 0 ? undefined : split(input.subarray(1))
  let silence: NodeJS.Timeout | undefined
  const say = (command: string): void => {
    const piece = pieces?.shift()
    if (command === 'EPSV') socket.write(`229 Passive (|||${dataPort}|)\r\n`)
    else if (command === 'PASV') socket.write(`227 Passive (127,0,0,1,${dataPort >> 8},${dataPort & 255})\r\n`)
    else if (command === 'LIST' || command === 'MLSD') socket.write('150 Here it comes\r\n226 That was it\r\n')
    else if (pieces === undefined) socket.write(`${honest[command] ?? (command === '' ? '220 Hello' : '250 Fine')}\r\n`)
    else if (piece === undefined) socket.destroy()
    else {
      socket.write(piece)
      socket.write('\r\n')
      silence = setTimeout(() => socket.destroy(), silenceMs)
    }
  }
  socket.on('close', () => clearTimeout(silence))
  socket.setEncoding('latin1').on('data', (text) => {
    clearTimeout(silence)
    for (const line of String(text).split('\r\n')) if (line !== '') say(line.split(' ', 1)[0]!)
  })
  say('')
}

function split(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = []
  let from = 0
  for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, from)) {
    pieces.push(bytes.subarray(from, at))
    from = at + 1
  }
  return [...pieces, bytes.subarray(from)]
}

async function listen(serve: (socket: net.Socket) => void): Promise<number> {
  const server = net.createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => undefined)
    serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as net.AddressInfo).port
}
