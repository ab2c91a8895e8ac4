import { existsSync, lstatSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import t from 'tap'
import { BODY_LIMIT_BYTES, FOLLOWER_LIMIT, startApi } from '../../src/api/server.js'
import { StorageError } from '../../src/block/storage-error.js'
import { send, startFakeApi } from './fake-api.js'
import { event, streamView, volumeView } from './fake-operations.js'

const errorShape = { code: String, op: String, object: String, message: String, hint: String, retry: String }

t.test('each request reaches its operation with what was sent, and answers with its view', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const expectations: [string, string, unknown, unknown[]][] = [
    ['GET', '/v1/agent', undefined, ['agent']],
    ['GET', '/v1/volumes', undefined, ['volumeList']],
    [
      'POST',
      '/v1/volumes',
      { name: 'a', path: '/x', size: '1GiB' },
      ['volumeCreate', { name: 'a', path: '/x', sizeBytes: 1024 ** 3 }],
    ],
    [
      'POST',
      '/v1/volumes',
      { name: 'a', path: '/x', size: 512, force: true },
      ['volumeCreate', { name: 'a', path: '/x', sizeBytes: 512, force: true }],
    ],
    ['POST', '/v1/volumes/a/adopt', { path: '/dev/sdb' }, ['volumeAdopt', { name: 'a', path: '/dev/sdb' }]],
    ['GET', '/v1/volumes/adopt', undefined, ['volumeShow', 'adopt']],
    ['DELETE', '/v1/volumes/a', undefined, ['volumeRemove', 'a', false]],
    ['DELETE', '/v1/volumes/a?yes=true', undefined, ['volumeRemove', 'a', true]],
    ['POST', '/v1/volumes/a/attach', undefined, ['volumeAttach', 'a', false]],
    ['POST', '/v1/volumes/a/attach', {}, ['volumeAttach', 'a', false]],
    ['POST', '/v1/volumes/a/attach?readOnly=true', undefined, ['volumeAttach', 'a', true]],
    [
      'POST',
      '/v1/volumes',
      { name: 'a', pool: 'p', size: '300GiB' },
      ['volumeCreateThin', { name: 'a', pool: 'p', sizeBytes: 300 * 1024 ** 3 }],
    ],
    ['POST', '/v1/volumes/a/resize', { size: '2MiB' }, ['volumeResize', 'a', 2 * 1024 ** 2, false]],
    ['POST', '/v1/volumes/a/resize', { size: 512, force: true }, ['volumeResize', 'a', 512, true]],
    ['GET', '/v1/volumes/a/diff?from=x&to=y', undefined, ['volumeDiff', 'a', 'x', 'y', 0]],
    ['GET', '/v1/volumes/a/diff?from=x&after=4096', undefined, ['volumeDiff', 'a', 'x', null, 4096]],
    ['GET', '/v1/volumes/a/snapshots', undefined, ['snapshotList', 'a']],
    ['POST', '/v1/volumes/a/snapshots', { name: 's' }, ['snapshotCreate', 'a', 's']],
    ['DELETE', '/v1/volumes/a/snapshots/s', undefined, ['snapshotRemove', 'a', 's']],
    ['POST', '/v1/volumes/a/snapshots/s/rollback', undefined, ['snapshotRollback', 'a', 's', false]],
    ['POST', '/v1/volumes/a/snapshots/s/rollback?yes=true', undefined, ['snapshotRollback', 'a', 's', true]],
    ['POST', '/v1/volumes/a/snapshots/s/attach?readOnly=true', undefined, ['snapshotAttach', 'a', 's', true]],
    ['POST', '/v1/volumes/a/snapshots/s/attach', undefined, ['snapshotAttach', 'a', 's', false]],
    ['DELETE', '/v1/inbound/a', undefined, ['inboundRemove', 'a', false]],
    ['DELETE', '/v1/inbound/a?yes=true', undefined, ['inboundRemove', 'a', true]],
    ['POST', '/v1/volumes/a/snapshots/s/discard', undefined, ['snapshotDiscard', 'a', 's', false]],
    ['POST', '/v1/volumes/a/snapshots/s/discard?yes=true', undefined, ['snapshotDiscard', 'a', 's', true]],
    ['POST', '/v1/volumes/a/snapshots/s/detach', undefined, ['snapshotDetach', 'a', 's']],
    ['POST', '/v1/clones', { name: 'c', volume: 'a' }, ['cloneCreate', { name: 'c', volume: 'a' }]],
    [
      'POST',
      '/v1/clones',
      { name: 'c', volume: 'a', snapshot: 's', full: true },
      ['cloneCreate', { name: 'c', volume: 'a', snapshot: 's', full: true }],
    ],
    ['POST', '/v1/clones/c/refresh', {}, ['cloneRefresh', 'c', null]],
    ['POST', '/v1/clones/c/refresh', { from: 's' }, ['cloneRefresh', 'c', 's']],
    ['GET', '/v1/pools', undefined, ['poolList']],
    ['GET', '/v1/pools/p', undefined, ['poolShow', 'p']],
    [
      'POST',
      '/v1/pools',
      { name: 'p', devices: [{ path: '/x', kind: 'file', size: '1GiB' }], unit: '4MiB', block: 16384, force: true },
      [
        'poolCreate',
        {
          name: 'p',
          devices: [{ path: '/x', kind: 'file', sizeBytes: 1024 ** 3 }],
          unitBytes: 4 * 1024 ** 2,
          blockBytes: 16384,
          force: true,
        },
      ],
    ],
    [
      'POST',
      '/v1/pools/p/extend',
      { path: '/dev/sdb', kind: 'raw' },
      ['poolExtend', 'p', { path: '/dev/sdb', kind: 'raw' }],
    ],
    ['POST', '/v1/pools/p/export', undefined, ['poolExport', 'p']],
    ['POST', '/v1/pool-imports', { paths: ['/a', '/b'] }, ['poolImport', ['/a', '/b']]],
    ['DELETE', '/v1/pools/p', undefined, ['poolRemove', 'p', false]],
    ['DELETE', '/v1/pools/p?yes=true', undefined, ['poolRemove', 'p', true]],
    ['POST', '/v1/pools/p/check', undefined, ['poolCheck', 'p', false]],
    ['POST', '/v1/pools/p/check?repair=true', undefined, ['poolCheck', 'p', true]],
    ['POST', '/v1/volumes/a/detach', undefined, ['volumeDetach', 'a']],
    ['POST', '/v1/pairings', { kind: 'https' }, ['pairingCreate', { kind: 'https' }]],
    ['POST', '/v1/pairings', { kind: 'https', listen: 'h:1' }, ['pairingCreate', { kind: 'https', listen: 'h:1' }]],
    [
      'POST',
      '/v1/pairings',
      { kind: 'ftp', url: 'ftp://u:p@h/d', inbox: '/in' },
      ['pairingCreate', { kind: 'ftp', url: 'ftp://u:p@h/d', inbox: '/in' }],
    ],
    [
      'POST',
      '/v1/pairings',
      { kind: 'folder', directory: '/f' },
      ['pairingCreate', { kind: 'folder', directory: '/f' }],
    ],
    ['GET', '/v1/destinations', undefined, ['destinationList']],
    ['POST', '/v1/destinations', { name: 'd', pairing: 'p' }, ['destinationAdd', { name: 'd', pairing: 'p' }]],
    ['POST', '/v1/destinations/d/test', undefined, ['destinationTest', 'd']],
    ['DELETE', '/v1/destinations/d', undefined, ['destinationRemove', 'd']],
    ['GET', '/v1/streams', undefined, ['streamList']],
    [
      'POST',
      '/v1/streams',
      { name: 's', volumes: ['a', 'b'], destination: 'd', epoch: '250ms' },
      ['streamCreate', { name: 's', volumes: ['a', 'b'], destination: 'd', epochMs: 250 }],
    ],
    ['GET', '/v1/streams/s', undefined, ['streamStatus', 's']],
    ['POST', '/v1/streams/s/initialize', undefined, ['streamInitialize', 's', false]],
    ['POST', '/v1/streams/s/initialize?discardJournal=true', undefined, ['streamInitialize', 's', true]],
    ['POST', '/v1/streams/s/flush', undefined, ['streamFlush', 's']],
    ['GET', '/v1/streams/s/wait?epoch=5&timeoutMs=250', undefined, ['streamWait', 's', 5, 250]],
    ['GET', '/v1/streams/s/wait?epoch=5&timeoutMs=999999999', undefined, ['streamWait', 's', 5, 60_000]],
    [
      'POST',
      '/v1/streams/s/set',
      { policy: 'strict', wait: '5s' },
      ['streamSet', 's', { kind: 'strict', waitMs: 5000 }],
    ],
    ['POST', '/v1/streams/s/buffer/move', { directory: '/srv/b' }, ['bufferMove', 's', '/srv/b']],
    ['POST', '/v1/streams/s/buffer/abort', undefined, ['bufferMove', 's', null]],
    ['POST', '/v1/streams/s/verify', {}, ['streamVerify', 's', true]],
    ['POST', '/v1/streams/s/verify', { repair: false }, ['streamVerify', 's', false]],
    ['POST', '/v1/streams/s/verify/abort', undefined, ['streamVerify', 's', null]],
    ['POST', '/v1/streams/s/pause', undefined, ['streamPause', 's']],
    ['POST', '/v1/streams/s/resume', undefined, ['streamResume', 's']],
    ['DELETE', '/v1/streams/s', undefined, ['streamRemove', 's', false]],
    ['DELETE', '/v1/streams/s?discardJournal=true', undefined, ['streamRemove', 's', true]],
    ['GET', '/v1/inbound', undefined, ['inboundList']],
    ['GET', '/v1/inbound/s', undefined, ['inboundShow', 's']],
    ['GET', '/v1/events?after=3', undefined, ['events', 3]],
  ]
  for (const [method, url, body, call] of expectations) {
    const reply = await send(socketPath, method, url, body)
    t.equal(reply.status, 200, `${method} ${url}: ${reply.text}`)
    t.same(operations.calls.at(-1), call, `${method} ${url}`)
  }
  t.same((await send(socketPath, 'GET', '/v1/streams/s')).json, streamView('s'))
  t.same((await send(socketPath, 'GET', '/v1/volumes')).json, [volumeView('db')])
})

t.test('a StorageError arrives with every field and a fitting status', async (t) => {
  const { operations, socketPath, log } = await startFakeApi(t)
  const detail = { op: 'volume show', object: 'x', hint: 'Do this.' }
  const statuses: [string, number, 'never' | 'later'][] = [
    ['NOT_FOUND', 404, 'never'],
    ['VOLUME_UNKNOWN', 404, 'never'],
    ['BAD_PAIRING', 400, 'never'],
    ['ALREADY_EXISTS', 409, 'never'],
    ['DEVICE_BUSY', 409, 'never'],
    ['REMOTE_FULL', 507, 'later'],
    ['LINK_DOWN', 503, 'later'],
    ['SOMETHING_ELSE', 422, 'never'],
  ]
  for (const [code, status, retry] of statuses) {
    operations.failNext = new StorageError(code, { ...detail, retry, cause: new Error('why') })
    const reply = await send(socketPath, 'GET', '/v1/volumes/x')
    t.equal(reply.status, status, code)
    t.same(reply.json, {
      error: { code, op: 'volume show', object: 'x', message: `volume show x: ${code} (why)`, hint: 'Do this.', retry },
    })
  }
  t.notOk(log.levels().includes('error'))
})

t.test('what nobody foresaw is a 500 without details, which are in the log', async (t) => {
  const { operations, socketPath, log } = await startFakeApi(t)
  for (const failure of [
    new TypeError('secret detail'),
    'a string',
    null,
    { statusCode: 400, message: 'secret detail' },
    Object.assign(new Error('secret detail'), { statusCode: 200 }),
  ]) {
    operations.failNext = failure
    const reply = await send(socketPath, 'POST', '/v1/streams/s/flush')
    t.equal(reply.status, 500)
    t.equal(reply.json.error.code, 'INTERNAL')
    t.notMatch(reply.text, /secret detail|TypeError|at /)
  }
  t.equal(log.levels().filter((level) => level === 'error').length, 5)
  t.equal((log.lines.find(({ level }) => level === 'error')!.details as { err: Error }).err.message, 'secret detail')
  operations.volumes = [{ ...volumeView('db'), sizeBytes: undefined as unknown as number }]
  const broken = await send(socketPath, 'GET', '/v1/volumes')
  t.equal(broken.json.error.code, 'INTERNAL', 'a view that breaks its own schema is no answer')
})

t.test('wrong input is a BAD_REQUEST that says where, and reaches no operation', async (t) => {
  const { operations, socketPath, log } = await startFakeApi(t)
  const volume = { name: 'a', path: '/x', size: '1GiB' }
  const wrong: [string, string, unknown, RegExp][] = [
    ['POST', '/v1/volumes', { ...volume, extra: 1 }, /unknown field "extra"/],
    ['POST', '/v1/volumes', { ...volume, name: 7 }, /body\/name must be string/],
    ['POST', '/v1/volumes', { ...volume, name: '' }, /body\/name/],
    ['POST', '/v1/volumes', { ...volume, force: 'true' }, /body\/force must be boolean/],
    ['POST', '/v1/volumes', { ...volume, force: 1 }, /body\/force must be boolean/],
    ['POST', '/v1/volumes', { ...volume, size: null }, /body\/size/],
    ['POST', '/v1/volumes', { ...volume, size: 1.5 }, /body\/size/],
    ['POST', '/v1/volumes', { ...volume, size: -512 }, /body\/size/],
    ['POST', '/v1/volumes', { ...volume, path: 'relative' }, /body\/path/],
    ['POST', '/v1/volumes', { ...volume, path: '/a\0b' }, /body\/path/],
    ['POST', '/v1/volumes', { name: 'a' }, /required property/],
    ['POST', '/v1/volumes', [volume], /must be object/],
    ['POST', '/v1/volumes', 'null', /must be object/],
    ['POST', '/v1/volumes', undefined, /body/],
    ['POST', '/v1/volumes', '', /./],
    ['POST', '/v1/volumes', '{"name":', /not valid JSON/],
    ['POST', '/v1/volumes', '{"name":"a","name":"b"}', /one key twice/],
    ['POST', '/v1/volumes', '{"__proto__":{"force":true},"name":"a"}', /forbidden key/],
    ['POST', '/v1/volumes', '{"constructor":{"prototype":{}}}', /forbidden key/],
    ['POST', '/v1/volumes', '{"size":1e309}', /beyond 2\^53/],
    ['POST', '/v1/volumes', '{"size":9007199254740993}', /beyond 2\^53/],
    ['POST', '/v1/volumes', '['.repeat(100_000) + ']'.repeat(100_000), /nested/],
    ['POST', '/v1/volumes/a/attach', { now: true }, /takes no body/],
    ['POST', '/v1/volumes/a/attach', [], /takes no body/],
    ['POST', '/v1/volumes/a/attach', '1', /./],
    ['GET', '/v1/volumes?x=1', undefined, /unknown field "x"/],
    ['GET', '/v1/events?after=-1', undefined, /querystring\/after/],
    ['GET', '/v1/events?after=1&after=2', undefined, /querystring\/after/],
    ['GET', '/v1/events?after=9999999999999999999', undefined, /querystring\/after/],
    ['GET', '/v1/events?follow=yes', undefined, /querystring\/follow/],
    ['GET', '/v1/streams/s/wait', undefined, /epoch/],
    ['POST', '/v1/streams', { name: 's', volumes: [], destination: 'd' }, /body\/volumes/],
    ['POST', '/v1/streams', { name: 's', volumes: ['a', 'a'], destination: 'd' }, /body\/volumes/],
    ['POST', '/v1/streams', { name: 's', volumes: 'a', destination: 'd' }, /body\/volumes must be array/],
    ['POST', '/v1/pairings', { kind: 'smb' }, /body\/kind/],
    ['POST', '/v1/pairings', { kind: 'ftp', url: 'ftp://h\r\nDELE x', inbox: '/i' }, /body\/url/],
    ['POST', '/v1/pairings', { kind: 'ftp', url: 'ftp://h' }, /takes url and inbox/],
    ['POST', '/v1/pairings', { kind: 'folder' }, /takes directory/],
    ['POST', '/v1/pairings', { kind: 'https', directory: '/x' }, /takes listen or nothing, not directory/],
  ]
  for (const [method, url, body, reason] of wrong) {
    const reply = await send(socketPath, method, url, body)
    const title = `${method} ${url} ${JSON.stringify(body)?.slice(0, 60)}`
    t.equal(reply.status, 400, title)
    t.match(reply.json?.error, { ...errorShape, code: 'BAD_REQUEST', message: reason }, title)
  }
  t.same(operations.calls, [])
  t.ok(
    log
      .levels()
      .slice(1)
      .every((level) => level === 'warn'),
  )
  t.equal(({} as { force?: boolean }).force, undefined)
})

t.test('a size or time that makes no sense has a code of its own', async (t) => {
  const { socketPath } = await startFakeApi(t)
  const create = (size: unknown) => send(socketPath, 'POST', '/v1/volumes', { name: 'a', path: '/x', size })
  for (const size of ['1000', 1000, 'big', '1e9', '99999999TiB', '-1GiB']) {
    const reply = await create(size)
    t.match(reply, { status: 400, json: { error: { code: 'BAD_SIZE', hint: /multiple of 512/ } } }, String(size))
  }
  const stream = { name: 's', volumes: ['a'], destination: 'd', epoch: 'soon' }
  t.match((await send(socketPath, 'POST', '/v1/streams', stream)).json, { error: { code: 'BAD_DURATION' } })
})

t.test('a name that could lead elsewhere is refused wherever a name is taken', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const hostile = [
    '..%2f..%2fetc',
    '..',
    '.',
    '%2e%2e',
    'a%00b',
    '-rf',
    'a%0d%0aDELE%20x',
    '%1b%5b31m',
    'a%2Fb',
    'x'.repeat(64),
  ]
  for (const name of hostile) {
    for (const [method, url] of [
      ['GET', `/v1/volumes/${name}`],
      ['DELETE', `/v1/volumes/${name}`],
      ['POST', `/v1/destinations/${name}/test`],
      ['POST', `/v1/streams/${name}/flush`],
      ['GET', `/v1/streams/${name}/wait?epoch=1`],
      ['GET', `/v1/inbound/${name}`],
      ['GET', `/v1/pools/${name}`],
      ['DELETE', `/v1/pools/${name}?yes=true`],
      ['POST', `/v1/volumes/a/snapshots/${name}/rollback?yes=true`],
      ['DELETE', `/v1/volumes/${name}/snapshots/s`],
      ['GET', `/v1/volumes/a/diff?from=${name}`],
    ] as const) {
      const reply = await send(socketPath, method, url)
      t.match(
        reply,
        { status: 400, json: { error: { code: 'BAD_NAME', hint: /1 to 63 letters/ } } },
        `${method} ${url}`,
      )
    }
  }
  const bodies: [string, unknown][] = [
    ['/v1/volumes', { name: '../x', path: '/x', size: 512 }],
    ['/v1/volumes/..%2fx/adopt', { path: '/x' }],
    ['/v1/destinations', { name: 'a/b', pairing: 'p' }],
    ['/v1/streams', { name: 's', volumes: ['../a'], destination: 'd' }],
    ['/v1/streams', { name: 's', volumes: ['a'], destination: '..' }],
    ['/v1/pools', { name: '../p', devices: [{ path: '/x', kind: 'raw' }] }],
    ['/v1/volumes', { name: 'a', pool: '..', size: 512 }],
    ['/v1/volumes/a/snapshots', { name: '.hidden' }],
    ['/v1/clones', { name: 'c', volume: 'a@b' }],
    ['/v1/clones', { name: 'c', volume: 'a', snapshot: '.image:c:1' }],
    ['/v1/clones/c/refresh', { from: '../s' }],
  ]
  for (const [url, body] of bodies) {
    t.match((await send(socketPath, 'POST', url, body)).json, { error: { code: 'BAD_NAME' } }, url)
  }
  t.same(operations.calls, [])
})

t.test('unknown routes, wrong methods and undecodable addresses are refused in the same form', async (t) => {
  const { socketPath, operations } = await startFakeApi(t)
  for (const url of [
    '/',
    '/v1',
    '/v2/volumes',
    '/v1/volumes/a/b/c',
    '/../../etc/passwd',
    '/v1/..%2f..%2fetc%2fpasswd',
  ]) {
    t.match(await send(socketPath, 'GET', url), { status: 404, json: { error: { code: 'BAD_REQUEST' } } }, url)
  }
  t.match(await send(socketPath, 'GET', '/v1/volumes/%ff'), { status: 400, json: { error: { code: 'BAD_REQUEST' } } })
  for (const [method, url, allow] of [
    ['PUT', '/v1/volumes', 'GET, HEAD, POST'],
    ['DELETE', '/v1/volumes', 'GET, HEAD, POST'],
    ['GET', '/v1/volumes/a/attach', 'POST'],
    ['PATCH', '/v1/streams/s', 'GET, HEAD, DELETE'],
    ['OPTIONS', '/v1/agent', 'GET, HEAD'],
    ['POST', '/v1/events', 'GET, HEAD'],
  ] as const) {
    const reply = await send(socketPath, method, url)
    t.match(reply, { status: 405, headers: { allow }, json: { error: { code: 'BAD_REQUEST' } } }, `${method} ${url}`)
  }
  t.same(operations.calls, [])
})

t.test('a web page is refused: foreign Host, Origin, form posts', async (t) => {
  const { socketPath, operations } = await startFakeApi(t)
  const refused: [http.OutgoingHttpHeaders, number][] = [
    [{ host: 'evil.example' }, 403],
    [{ host: 'localhost.evil.example' }, 403],
    [{ origin: 'http://evil.example' }, 403],
    [{ origin: 'null' }, 403],
    [{ 'sec-fetch-site': 'cross-site' }, 403],
    [{ 'content-type': 'text/plain' }, 415],
    [{ 'content-type': 'application/x-www-form-urlencoded' }, 415],
    [{ 'content-type': 'multipart/form-data; boundary=x' }, 415],
  ]
  for (const [headers, status] of refused) {
    const reply = await send(socketPath, 'POST', '/v1/volumes/a/adopt', { path: '/x' }, headers)
    t.match(reply, { status, json: { error: errorShape } }, JSON.stringify(headers))
  }
  t.equal((await send(socketPath, 'GET', '/v1/agent', undefined, { origin: 'http://localhost' })).status, 403)
  t.same(operations.calls, [])
})

t.test('a body over 1 MiB is refused early, a 100 MB one too, and the service goes on', async (t) => {
  const { socketPath, operations } = await startFakeApi(t)
  const big = JSON.stringify({ name: 'd', pairing: 'x'.repeat(BODY_LIMIT_BYTES) })
  t.match(await send(socketPath, 'POST', '/v1/destinations', big), {
    status: 413,
    json: { error: { code: 'BAD_REQUEST' } },
  })
  const sent = await flood(socketPath, 100_000_000)
  t.ok(sent.bytes < 20_000_000, `${sent.bytes} bytes were taken`)
  t.match(sent.head, /^HTTP\/1\.1 413/)
  t.equal((await send(socketPath, 'GET', '/v1/agent')).status, 200)
  t.same(operations.calls, [['agent']])
})

t.test('malformed HTTP is answered in the same form and closed', async (t) => {
  const { socketPath } = await startFakeApi(t)
  for (const text of [
    'NONSENSE\r\n\r\n',
    'GET /v1/agent HTTP/1.1\r\n\r\n',
    'GET /v1/agent HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n',
    'GET /v1/agent HTTP/1.0\r\n\r\n',
    'POST /v1/volumes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'POST /v1/volumes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n',
    `GET /v1/agent HTTP/1.1\r\nHost: localhost\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`,
  ]) {
    const answer = await raw(socketPath, text)
    t.match(answer, /^HTTP\/1\.1 4\d\d/, text.slice(0, 40))
    t.notMatch(answer, /200 OK/)
  }
})

t.test('events are followed as JSON lines: the past, then each new one', async (t) => {
  const { socketPath, operations } = await startFakeApi(t)
  operations.pastEvents = [event(1), event(2), event(3)]
  const { lines, close } = await follow(socketPath, '/v1/events?after=1&follow=true')
  await until(() => lines.length === 2)
  operations.emit(event(4, 'two\nlines \u001b[31m'))
  await until(() => lines.length === 3)
  t.same(
    lines.map((line) => JSON.parse(line)),
    [event(2), event(3), event(4, 'two\nlines \u001b[31m')],
  )
  close()
  await until(() => operations.listenerCount === 0)
})

t.test('only so many may follow at once, and one who leaves makes room', async (t) => {
  const { socketPath, operations } = await startFakeApi(t)
  const followers = await Promise.all(
    Array.from({ length: FOLLOWER_LIMIT }, () => follow(socketPath, '/v1/events?follow=true')),
  )
  const refused = await send(socketPath, 'GET', '/v1/events?follow=true')
  t.match(refused, { status: 503, json: { error: { code: 'TOO_MANY_FOLLOWERS', retry: 'later' } } })
  followers[0]!.close()
  await until(() => operations.listenerCount < FOLLOWER_LIMIT)
  const again = await follow(socketPath, '/v1/events?follow=true')
  for (const follower of [...followers, again]) follower.close()
  await until(() => operations.listenerCount === 0)
})

t.test('close ends followers, lets a request finish and takes the socket away', async (t) => {
  const { socketPath, operations, api } = await startFakeApi(t)
  const follower = await follow(socketPath, '/v1/events?follow=true')
  operations.waits = [false]
  const slow = send(socketPath, 'GET', '/v1/streams/s/wait?epoch=1&timeoutMs=100')
  await until(() => operations.calls.some(([name]) => name === 'streamWait'))
  await api.close()
  t.equal((await slow).status, 200)
  await follower.ended
  t.notOk(existsSync(socketPath))
})

t.test('a second server on a live socket is refused, and the first goes on', async (t) => {
  const { socketPath, operations, log } = await startFakeApi(t)
  t.equal(lstatSync(socketPath).mode & 0o777, 0o600)
  await t.rejects(startApi({ operations, socketPath, log }), { code: 'AGENT_RUNNING' })
  t.equal((await send(socketPath, 'GET', '/v1/agent')).status, 200)
})

t.test('secrets of a request are never in the log', async (t) => {
  const { socketPath, log, operations } = await startFakeApi(t)
  const secret = 'hush-1234567890'
  await send(socketPath, 'POST', '/v1/destinations', { name: 'd', pairing: secret, extra: 1 })
  await send(socketPath, 'POST', '/v1/destinations', `{"pairing":"${secret}"`)
  await send(socketPath, 'POST', '/v1/pairings', { kind: 'ftp', url: `ftp://u:${secret}@h\n`, inbox: '/i' })
  operations.failNext = new Error('unforeseen')
  await send(socketPath, 'POST', '/v1/destinations', { name: 'd', pairing: secret })
  t.ok(log.lines.length >= 4)
  t.notMatch(JSON.stringify(log.lines), secret)
})

/** Send up to so many bytes of a body, until the server has had enough. */
function flood(socketPath: string, length: number): Promise<{ bytes: number; head: string }> {
  return new Promise((resolve) => {
    const client = net.connect(socketPath)
    const piece = Buffer.alloc(1024 * 1024, 0x20)
    let bytes = 0
    let head = ''
    const pump = () => {
      while (bytes < length && !client.destroyed) {
        bytes += piece.length
        if (!client.write(piece)) return
      }
    }
    client.on('error', () => {})
    client.on('data', (data) => {
      head += data
    })
    client.on('drain', pump)
    client.on('close', () => resolve({ bytes, head }))
    client.write(
      `POST /v1/volumes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${length.toString(16)}\r\n`,
      pump,
    )
  })
}

function raw(socketPath: string, text: string): Promise<string> {
  return new Promise((resolve) => {
    const client = net.connect(socketPath)
    let answer = ''
    client.on('error', () => {})
    client.on('data', (data) => {
      answer += data
    })
    client.on('close', () => resolve(answer))
    client.write(text)
  })
}

function follow(
  socketPath: string,
  url: string,
): Promise<{ lines: string[]; close: () => void; ended: Promise<void> }> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: url, agent: false, headers: { host: 'localhost' } })
    request.on('error', reject)
    request.on('response', (response) => {
      const lines: string[] = []
      let rest = ''
      response.setEncoding('utf8')
      response.on('error', () => {})
      response.on('data', (piece: string) => {
        const parts = (rest + piece).split('\n')
        rest = parts.pop()!
        lines.push(...parts)
      })
      const ended = new Promise<void>((done) => response.on('close', done))
      resolve({ lines, close: () => request.destroy(), ended })
    })
  })
}

async function until(holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 500 && !holds(); turn += 1) await new Promise((resolve) => setTimeout(resolve, 10))
  if (!holds()) throw new Error('it did not come to hold within 5 s')
}
