import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readConfig } from '../../src/daemon/config.js'
import { EventJournal } from '../../src/daemon/event-journal.js'
import { SecretFiles } from '../../src/daemon/secret-files.js'
import { lockState } from '../../src/daemon/state-lock.js'
import { parseStoredCertificate, parseStoredPairing } from '../../src/daemon/stored-pairing.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('the configuration says what it means, and an option nobody knows is refused by name', async (t) => {
  const file = join(scratchFolder(t, 'config'), 'tidemark.yaml')
  t.match(await readConfig(undefined, '/state'), { bufferDirectory: '/state/buffer', threads: 2 })
  writeFileSync(
    file,
    'listen: 192.0.2.7:7443\nbuffer:\n  directory: /srv/buffer\n  limit: 2GiB\nvolume:\n  threads: 4\n',
  )
  t.match(await readConfig(file, '/state'), {
    listen: '192.0.2.7:7443',
    bufferDirectory: '/srv/buffer',
    bufferLimitBytes: 2 * 1024 ** 3,
    threads: 4,
  })
  t.match(await readConfig(undefined, '/state'), {
    inboundPool: undefined,
    poolWaitMs: 60_000,
    poolMarks: [70, 85, 95],
  })
  writeFileSync(file, 'inbound:\n  pool: copies\npool:\n  wait: 90s\n  marks: [60, 97.5]\n')
  t.match(await readConfig(file, '/state'), { inboundPool: 'copies', poolWaitMs: 90_000, poolMarks: [60, 97.5] })
  writeFileSync(file, 'pool:\n  marks: 80\n')
  t.match(await readConfig(file, '/state'), { poolMarks: [80] })
  writeFileSync(file, 'journal:\n  checkpoint: 500ms\n')
  t.match(await readConfig(file, '/state'), { checkpointMs: 500 })
  const wrong = [
    'journal:\n  checkpoint: 50ms\n',
    'journal:\n  checkpoint: 2m\n',
    'pool:\n  marks: [85, 70]\n',
    'pool:\n  marks: [0, 70]\n',
    'pool:\n  marks: [70, 101]\n',
    'pool:\n  marks: []\n',
    'pool:\n  wait: 60\n',
    'inbound:\n  pool: ../x\n',
    'bufer:\n  limit: 1GiB\n',
    'buffer:\n  limit: lots\n',
    'volume:\n  threads: 99\n',
    'a: [\n',
    '__proto__: 1\n',
    'pool:\n  marks: [{ toString: 1 }]\n',
    'pool:\n  marks: [[50], 60]\n',
    'buffer:\n  directory:\n',
    'buffer:\n  directory: ""\n',
    'inbound:\n  directory: [/a, /b]\n',
    'listen:\n',
  ]
  for (const text of wrong) {
    writeFileSync(file, text)
    await t.rejects(readConfig(file, '/state'), { code: 'BAD_CONFIG', object: file }, JSON.stringify(text))
  }
  await t.rejects(readConfig('/no/such/file', '/state'), { code: 'BAD_CONFIG' })
})

t.test('events are numbered on over a restart, and a line cut short by a crash is skipped', async (t) => {
  const file = join(scratchFolder(t, 'events'), 'events.ndjson')
  const first = new EventJournal(file)
  const heard: number[] = []
  const leave = first.listen(({ number }) => heard.push(number))
  for (const text of ['a', 'b', 'c']) first.report({ severity: 'info', code: 'X', object: 'o', text })
  leave()
  t.same(heard, [1, 2, 3])
  writeFileSync(file, `${readFileSync(file, 'utf8')}{"number": 4, "te`)
  const second = new EventJournal(file)
  second.report({ severity: 'info', code: 'X', object: 'o', text: 'd' })
  t.same(
    second.after(1).map(({ number, text }) => [number, text]),
    [
      [2, 'b'],
      [3, 'c'],
      [4, 'd'],
    ],
  )
  t.same(new EventJournal(file).after(3), second.after(3), 'what came after the crash is a line of its own')
})

t.test('a line that is no event of ours is skipped, so that the others can be answered', async (t) => {
  const file = join(scratchFolder(t, 'events'), 'events.ndjson')
  const whole = { number: 7, time: '2026-01-01T00:00:00.000Z', severity: 'info', code: 'X', object: 'o', text: 'a' }
  const wrong = [
    { number: 8 },
    { ...whole, severity: 'loud' },
    { ...whole, text: 5 },
    { ...whole, number: 2 ** 53 - 1 },
  ]
  writeFileSync(file, [null, 5, [], ...wrong, whole, ''].map((line) => `${JSON.stringify(line)}\n`).join(''))
  const events = new EventJournal(file)
  t.same(events.after(0), [whole])
  events.report({ severity: 'info', code: 'X', object: 'o', text: 'b' })
  t.same(
    events.after(7).map(({ number }) => number),
    [8],
  )
})

t.test('a secret that is damaged is named, and nothing of it is quoted', async (t) => {
  const pairing = { pairing: 'tidemark1-x', inbox: '/srv/in' }
  t.same(parseStoredPairing(JSON.stringify(pairing), 'pairings/a'), pairing)
  const certificate = { key: 'k', cert: 'c' }
  t.same(parseStoredCertificate(JSON.stringify(certificate), 'certificate.json'), certificate)
  const damage = [
    '',
    '{"pairing":"hush',
    'null',
    '5',
    '[]',
    '{"pairing":"hush"}',
    '{"pairing":5,"inbox":"hush"}',
    'hush',
  ]
  for (const text of damage) {
    const refusal = { code: 'SECRET_DAMAGED', object: 'pairings/a', message: /^(?!.*hush)/ }
    t.throws(() => parseStoredPairing(text, 'pairings/a'), refusal, text)
    t.throws(() => parseStoredCertificate(text, 'certificate.json'), { code: 'SECRET_DAMAGED' }, text)
  }
})

t.test('secrets are private files, and one that others can read is refused', async (t) => {
  const folder = join(scratchFolder(t, 'secrets'), 'pairings')
  const secrets = new SecretFiles(folder)
  await secrets.write('one', 'hush')
  t.equal(statSync(join(folder, 'one')).mode & 0o777, 0o600)
  t.equal(statSync(folder).mode & 0o777, 0o700)
  t.same([...(await secrets.readAll())], [['one', 'hush']])
  chmodSync(join(folder, 'one'), 0o644)
  await t.rejects(secrets.readAll(), { code: 'SECRET_EXPOSED', hint: /chmod 600/ })
})

t.test('a state directory belongs to one agent, and the kernel ends the lock with the process', async (t) => {
  const folder = scratchFolder(t, 'lock')
  const unlock = await lockState(folder)
  const script = `import { lockState } from ${JSON.stringify(new URL('../../src/daemon/state-lock.js', import.meta.url).href)}
    try { await lockState(${JSON.stringify(folder)}); console.log('locked') } catch ({ code, hint }) { console.log(code, hint) }`
  const attempt = (): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout.trim()
  t.match(attempt(), new RegExp(`STATE_LOCKED .*pid ${process.pid}`))
  unlock()
  t.equal(attempt(), 'locked', 'and that process has ended without giving it back')
  const release = await lockState(folder)
  release()
})
