import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { type Api, startApi } from '../../src/api/server.js'
import { FakeLog, FakeOperations } from './fake-operations.js'

/** A short path: a socket's name has 107 bytes. */
export function privateFolder(t: { teardown(handler: () => void): void }): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tm-api-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export interface FakeApi {
  readonly operations: FakeOperations
  readonly log: FakeLog
  readonly socketPath: string
  readonly api: Api
}

/** The real server on a real socket, over made-up operations; gone when the test ends. */
export async function startFakeApi(t: { teardown(handler: () => unknown): void }): Promise<FakeApi> {
  const operations = new FakeOperations()
  const log = new FakeLog()
  const socketPath = path.join(privateFolder(t), 'agent.sock')
  const api = await startApi({ operations, socketPath, log })
  t.teardown(() => api.close())
  return { operations, log, socketPath, api }
}

export interface Reply {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into any reply
  readonly json: any
}

/** One raw request; a string body is sent as it is. */
export function send(
  socketPath: string,
  method: string,
  url: string,
  body?: unknown,
  headers: http.OutgoingHttpHeaders = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    const type = payload === undefined ? {} : { 'content-type': 'application/json' }
    const request = http.request({
      socketPath,
      method,
      path: url,
      agent: false,
      headers: { host: 'localhost', ...type, ...headers },
    })
    let replied = false
    request.on('response', (response) => {
      replied = true
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (piece) => {
        text += piece
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode!, headers: response.headers, text, json: parse(text) }),
      )
    })
    request.on('error', (error) => {
      if (!replied) reject(error)
    })
    request.end(payload)
  })
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
