/** What every transport promises; each runs the whole suite. */
import { randomBytes, randomInt } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { TEMPORARY_SUFFIX, type Transport } from '../../src/transport/transport.js'
import type { CuttingProxy } from '../fixtures/cutting-proxy.js'

export interface ContractSite {
  /** A transport to the site, or through a proxy that leads there. The suite closes it. */
  open(proxy?: CuttingProxy): Transport
  /** Where the files of the pairing lie: `<arrivals>/<folder>/<name>`. */
  readonly arrivals: string
  /** False: this server cannot take an empty file. No replication file is empty. */
  readonly emptyFiles?: false
  /** A proxy in front of the site; absent when there is no network. */
  readonly proxy?: () => Promise<CuttingProxy>
  /** Kill the far side and start it again; absent when there is no server. */
  readonly restart?: { kill(): Promise<void>; start(): Promise<void> }
  close(): Promise<void>
}

const MiB = 1024 * 1024
const never = new AbortController().signal

export async function transportContract(
  name: string,
  makeSite: (scratch: string) => Promise<ContractSite>,
): Promise<void> {
  await t.test(name, async (t) => {
    const scratch = t.testdir()
    const site = await makeSite(path.join(scratch))
    t.teardown(() => site.close())
    const local = async (content: Buffer): Promise<string> => {
      const file = path.join(scratch, `local-${randomBytes(6).toString('hex')}`)
      await writeFile(file, content)
      return file
    }
    const context = { site, local, newFolder: () => randomBytes(16).toString('hex') }
    await basics(t, context)
    await parallel(t, context)
    await hostileNames(t, context)
    await aborts(t, context)
    if (site.proxy) await cuts(t, context, site.proxy)
    if (site.restart) await restarts(t, context, site.restart)
  })
}

interface Context {
  readonly site: ContractSite
  readonly local: (content: Buffer) => Promise<string>
  readonly newFolder: () => string
}

async function basics(t: Test, { site, local, newFolder }: Context): Promise<void> {
  const transport = site.open()
  t.teardown(() => transport.close())
  await t.test('a folder that is not there is an empty one', async (t) => {
    t.same(await transport.list(newFolder(), never), [])
    t.equal(await transport.read(newFolder(), 'a', 10, never), undefined)
    await transport.remove(newFolder(), 'a', never)
  })
  await t.test('what was put is listed, read, replaced and removed', async (t) => {
    const folder = newFolder()
    const [first, second] = [randomBytes(70_000), randomBytes(123)]
    const empty = site.emptyFiles === false ? Buffer.from('a') : Buffer.alloc(0)
    let sent = 0
    await transport.put(folder, 'b.tmr', await local(first), { signal: never, onProgress: (bytes) => (sent += bytes) })
    await transport.put(folder, 'a.tmr', await local(empty), { signal: never })
    t.equal(sent, first.length)
    t.same(await transport.list(folder, never), [
      { name: 'a.tmr', lengthBytes: empty.length },
      { name: 'b.tmr', lengthBytes: first.length },
    ])
    t.same(await transport.read(folder, 'b.tmr', 70_000, never), first)
    t.same(await transport.read(folder, 'a.tmr', empty.length, never), empty)
    await t.rejects(transport.read(folder, 'b.tmr', 69_999, never), { code: 'REMOTE_FILE_TOO_LARGE' })
    await transport.put(folder, 'b.tmr', await local(second), { signal: never })
    t.same(await transport.read(folder, 'b.tmr', 70_000, never), second)
    await transport.remove(folder, 'b.tmr', never)
    await transport.remove(folder, 'b.tmr', never)
    t.equal(await transport.read(folder, 'b.tmr', 10, never), undefined)
    t.same(await transport.list(folder, never), [{ name: 'a.tmr', lengthBytes: empty.length }])
  })
  await t.test('the test of a sound destination passes and leaves nothing', async (t) => {
    const result = await transport.test(AbortSignal.timeout(20_000))
    t.ok(result.roundTripMs >= 0)
    t.notOk((await readdir(site.arrivals)).includes('0'.repeat(32)))
  })
  await t.test('a local file that is not there is not blamed on the far side', async (t) => {
    await t.rejects(transport.put(newFolder(), 'a', '/nonexistent/file', { signal: never }), { code: 'SOURCE_FILE' })
  })
}

async function parallel(t: Test, { site, local, newFolder }: Context): Promise<void> {
  await t.test(
    '20 files of 0 B to 8 MiB put at once arrive equal, and none is listed before it is complete',
    async (t) => {
      const transport = site.open()
      t.teardown(() => transport.close())
      const folder = newFolder()
      const lengths = [
        site.emptyFiles === false ? 2 : 0,
        1,
        511,
        4096,
        8 * MiB,
        ...Array.from({ length: 15 }, () => randomInt(2 * MiB)),
      ]
      const contents = new Map(lengths.map((length, index) => [`f${index}.tmr`, randomBytes(length)]))
      let done = false
      const puts = Promise.all(
        [...contents].map(async ([name, content]) =>
          transport.put(folder, name, await local(content), { signal: never }),
        ),
      ).finally(() => {
        done = true
      })
      while (!done) {
        for (const { name, lengthBytes } of await transport.list(folder, never)) {
          if (lengthBytes !== contents.get(name)?.length) t.fail(`${name} was listed with ${lengthBytes} bytes`)
        }
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      await puts
      for (const [name, content] of contents) {
        if (!content.equals(await readFile(path.join(site.arrivals, folder, name)))) t.fail(`${name} differs`)
      }
      t.equal((await transport.list(folder, never)).length, contents.size)
    },
  )
}

async function hostileNames(t: Test, { site, local, newFolder }: Context): Promise<void> {
  await t.test('a hostile name is refused before it reaches the wire', async (t) => {
    const proxy = await site.proxy?.()
    const transport = site.open(proxy)
    t.teardown(async () => {
      await transport.close()
      await proxy?.close()
    })
    const file = await local(Buffer.from('x'))
    const names = [
      '../x',
      '..',
      '.',
      '',
      'a/b',
      'a\r\nDELE b',
      'a\0',
      '-a',
      'A',
      'a b',
      '%2e',
      'é',
      'x'.repeat(121),
      `a${TEMPORARY_SUFFIX}`,
    ]
    for (const name of names) {
      const folder = newFolder()
      await t.rejects(transport.put(folder, name, file, { signal: never }), { code: 'BAD_NAME' })
      await t.rejects(transport.read(folder, name, 1, never), { code: 'BAD_NAME' })
      await t.rejects(transport.remove(folder, name, never), { code: 'BAD_NAME' })
    }
    for (const folder of ['../..', '', 'x'.repeat(32), `${newFolder()}/..`, newFolder().slice(1)]) {
      await t.rejects(transport.put(folder, 'a', file, { signal: never }), { code: 'BAD_NAME' })
      await t.rejects(transport.list(folder, never), { code: 'BAD_NAME' })
    }
    t.equal(proxy?.connectionCount ?? 0, 0)
  })
}

async function aborts(t: Test, { site, local, newFolder }: Context): Promise<void> {
  await t.test('an abort ends a put whose link stands still and leaves nothing listed', async (t) => {
    const proxy = await site.proxy?.()
    const transport = site.open(proxy)
    t.teardown(async () => {
      await transport.close()
      await proxy?.close()
    })
    const folder = newFolder()
    const file = await local(randomBytes((site.proxy ? 8 : 128) * MiB))
    const abort = new AbortController()
    // Over a network the link stands still, so that the abort finds the transfer under way for certain; a disk has enough to do.
    const onProgress = (): void => {
      proxy?.blackHole()
      if (proxy) setTimeout(() => abort.abort(), 100)
      else abort.abort()
    }
    const started = performance.now()
    await t.rejects(transport.put(folder, 'a.tmr', file, { signal: abort.signal, onProgress }), { name: 'AbortError' })
    t.ok(performance.now() - started < 20_000, 'not when the connection is given up')
    proxy?.pass()
    proxy?.cut()
    t.same(await transport.list(folder, never), [])
    await t.rejects(transport.list(folder, AbortSignal.abort()), { name: 'AbortError' })
    await transport.put(folder, 'a.tmr', file, { signal: never })
    t.equal((await transport.list(folder, never)).length, 1)
  })
}

async function cuts(
  t: Test,
  { site, local, newFolder }: Context,
  makeProxy: () => Promise<CuttingProxy>,
): Promise<void> {
  const proxy = await makeProxy()
  const transport = site.open(proxy)
  t.teardown(async () => {
    await transport.close()
    await proxy.close()
  })
  await t.test('a put goes on after the connection was cut, at 10 random places', async (t) => {
    const folder = newFolder()
    let resumed = 0
    for (let round = 0; round < 10; round++) {
      const content = randomBytes(4 * MiB)
      const place = randomInt(1, content.length)
      t.comment(`cut after ${place} bytes`)
      proxy.cutAfter(place)
      const before = proxy.sentBytes
      await transport.put(folder, 'a.tmr', await local(content), { signal: never })
      await proxy.cutDone()
      if (proxy.sentBytes - before < content.length + place * 0.9) resumed++
      if (!content.equals(await readFile(path.join(site.arrivals, folder, 'a.tmr')))) t.fail('the content differs')
    }
    t.comment(`${resumed} of 10 resumed`)
    t.ok(resumed >= 5, `most went on where they stopped: ${resumed}`)
    t.same(
      (await transport.list(folder, never)).map(({ name }) => name),
      ['a.tmr'],
    )
  })
  await t.test('a link that is down is LINK_DOWN with a retry class, and works again later', async (t) => {
    proxy.down()
    const folder = newFolder()
    const file = await local(randomBytes(1000))
    const error = await transport.put(folder, 'a.tmr', file, { signal: never }).catch((error: unknown) => error)
    t.match(error, { code: 'LINK_DOWN', retry: 'later' })
    t.ok(error instanceof StorageError && error.hint.length > 0)
    proxy.pass()
    await transport.put(folder, 'a.tmr', file, { signal: never })
    t.equal((await transport.list(folder, never)).length, 1)
  })
}

async function restarts(
  t: Test,
  { site, local, newFolder }: Context,
  server: NonNullable<ContractSite['restart']>,
): Promise<void> {
  await t.test('a far side that was killed and started again serves later calls', async (t) => {
    const transport = site.open()
    t.teardown(() => transport.close())
    const folder = newFolder()
    const content = randomBytes(8 * MiB)
    const file = await local(content)
    await transport.put(folder, 'a.tmr', file, { signal: never })
    for (let round = 0; round < 3; round++) {
      const puts = ['b.tmr', 'c.tmr'].map((name) => transport.put(folder, name, file, { signal: never }))
      const settled = Promise.allSettled(puts)
      await new Promise((resolve) => setTimeout(resolve, randomInt(60)))
      await server.kill()
      await new Promise((resolve) => setTimeout(resolve, 100))
      await server.start()
      await settled
      for (const name of ['b.tmr', 'c.tmr']) await transport.put(folder, name, file, { signal: never })
      for (const { lengthBytes } of await transport.list(folder, never)) t.equal(lengthBytes, content.length)
      t.ok(content.equals(await readFile(path.join(site.arrivals, folder, 'c.tmr'))))
    }
  })
}
