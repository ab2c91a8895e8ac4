import { chmodSync, chownSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import t from 'tap'
import { privateFolder, startFakeApi } from '../api/fake-api.js'
import { runCli } from './run-cli.js'

t.setTimeout(400_000)

t.test('wrong usage is exit 2 with what is wrong and how it is typed right', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const wrong: [string[], RegExp, string][] = [
    [
      ['volum', 'list'],
      /unknown command 'volum' \(Did you mean volume\?\)/,
      'tidemark [--agent SOCKET] [--json] COMMAND ...',
    ],
    [
      ['volume', 'lst'],
      /unknown command 'lst'/,
      'tidemark volume adopt|create|attach|detach|resize|diff|list|show|remove ...',
    ],
    [['volume', 'list', '--foo'], /unknown option '--foo'/, 'tidemark volume list'],
    [['volume', 'list', 'extra'], /too many arguments/, 'tidemark volume list'],
    [['volume', 'show'], /missing required argument/, 'tidemark volume show NAME'],
    [['volume', 'show', ''], /NAME is empty/, 'tidemark volume show NAME'],
    [['volume', 'adopt', 'a'], /--path/, 'tidemark volume adopt NAME --path PATH'],
    [['volume', 'adopt', 'a', '--path'], /argument missing/, 'tidemark volume adopt NAME --path PATH'],
    [
      ['volume', 'create', 'a', '--path', '/x'],
      /--size/,
      'tidemark volume create NAME --path PATH --size SIZE [--force] | NAME --pool POOL --size SIZE',
    ],
    ...[
      ['--size', '1GiB'],
      ['--size', '1GiB', '--path', '/x', '--pool', 'p'],
      ['--size', '1GiB', '--pool', 'p', '--force'],
    ].map((words): [string[], RegExp, string] => [
      ['volume', 'create', 'a', ...words],
      /--path/,
      'tidemark volume create NAME --path PATH --size SIZE [--force] | NAME --pool POOL --size SIZE',
    ]),
    ...['a@', '@b', 'a@b@c'].map((target): [string[], RegExp, string] => [
      ['volume', 'attach', target],
      /no VOLUME or VOLUME@SNAPSHOT/,
      'tidemark volume attach NAME|VOLUME@SNAPSHOT [--read-only]',
    ]),
    ...[
      ['a', 'a@b'],
      ['a@b', 'c@d'],
    ].map((words): [string[], RegExp, string] => [
      ['volume', 'diff', ...words],
      /VOLUME@SNAPSHOT|one volume/,
      'tidemark volume diff VOLUME@SNAPSHOT VOLUME[@SNAPSHOT]',
    ]),
    ...[
      [],
      ['--size', '1GiB'],
      ['--file', '/a'],
      ['--file', '/a', '--size', '1GiB', '--size', '2GiB'],
      ['--file', '/a', '--file', '/b', '--size', '1GiB', '--file', '/c', '--size', '1GiB'],
      ['--size', '1GiB', '--device', '/a'],
    ].map((words): [string[], RegExp, string] => [
      ['pool', 'create', 'p', ...words],
      /--device|--size|two sizes/,
      'tidemark pool create NAME --device PATH | --file PATH --size SIZE [--device PATH ...] [--unit SIZE] [--block SIZE] [--force]',
    ]),
    [
      ['pool', 'extend', 'p', '--device', '/a', '--device', '/b'],
      /one device or file at a time/,
      'tidemark pool extend NAME --device PATH | --file PATH --size SIZE [--force]',
    ],
    [['pool', 'import'], /missing required argument/, 'tidemark pool import PATH...'],
    [['pool', 'import', '/a', ''], /PATH is empty/, 'tidemark pool import PATH...'],
    [['pool', 'check', 'a', 'b'], /\.\/FILE/, 'tidemark pool check NAME | PATH... [--repair]'],
    [
      ['stream', 'create', 's', '--destination', 'd'],
      /--volume/,
      'tidemark stream create NAME --volume V [--volume W] --destination D [--epoch TIME] [--policy degrade|strict] [--wait TIME]',
    ],
    [['stream', 'flush', '--wait'], /missing required argument/, 'tidemark stream flush NAME [--wait]'],
    [['agent', 'bogus'], /too many arguments/, 'tidemark agent [--state DIR] [--config FILE]'],
    [['inspect'], /missing required argument/, 'tidemark inspect FILE [--state DIR]'],
    [['events', '--after', 'x'], /--after/, 'tidemark events [--follow] [--after N]'],
    [['--agent'], /argument missing/, 'tidemark [--agent SOCKET] [--json] COMMAND ...'],
    [['\u001b[31m'], /unknown command '\\x1b\[31m'/, 'tidemark [--agent SOCKET] [--json] COMMAND ...'],
    ...[
      ['--folder', '/a', '--listen', 'h:1'],
      ['--ftp', 'ftp://h'],
      ['--inbox', '/i'],
      ['--password-file', '/p'],
      ['--ftp', 'ftp://h', '--inbox', '/i', '--folder', '/f'],
    ].map((words): [string[], RegExp, string] => [
      ['pairing', 'create', ...words],
      /--/,
      'tidemark pairing create [--listen HOST:PORT] | --ftp URL --inbox DIR [--password-file FILE] | --folder DIR',
    ]),
  ]
  for (const [words, reason, usage] of wrong) {
    const title = JSON.stringify(words.join(' '))
    const [plain, json] = await Promise.all([words, ['--json', ...words]].map((line) => runCli(line, { socketPath })))
    t.match(plain, { code: 2, stdout: '' }, title)
    const [first, second, ...rest] = plain!.stderr.split('\n')
    t.match(first, reason, title)
    t.equal(second, `usage: ${usage}`, title)
    t.same(rest, [''], title)
    if (words[0] === '--agent') continue
    t.match(json, { code: 2, stdout: '' }, title)
    t.match(JSON.parse(json!.stderr), { error: { code: 'USAGE', hint: `usage: ${usage}` } }, title)
  }
  t.same(operations.calls, [])
})

t.test('without a command the help is shown and the exit code is 2; asked for, it is 0', async (t) => {
  for (const words of [[], ['volume'], ['stream'], ['pool'], ['snapshot'], ['clone']]) {
    const outcome = await runCli(words)
    t.match(outcome, { code: 2, stdout: '', stderr: /^Usage: tidemark/ })
    t.match(await runCli([...words, '--help']), { code: 0, stderr: '', stdout: outcome.stderr })
    const json = await runCli([...words, '--json'])
    t.match(JSON.parse(json.stderr), { error: { code: 'USAGE' } })
  }
  t.match(await runCli(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ })
})

t.test('an absent agent is exit 1 with a line that says how to start it', async (t) => {
  const folder = privateFolder(t)
  const socketPath = path.join(folder, 'agent.sock')
  for (const line of ['volume list', 'stream status gold', 'events --follow', 'agent show', 'stream flush s --wait']) {
    const outcome = await runCli(line.split(' '), { socketPath })
    t.match(outcome, { code: 1, stdout: '' }, line)
    t.equal(outcome.stderr.split('\n').length, 2, 'one line')
    t.match(outcome.stderr, `Start it: tidemark agent --state ${folder},`, line)
  }
  const json = await runCli(['volume', 'list', '--json'], { socketPath })
  t.match(JSON.parse(json.stderr), { error: { code: 'AGENT_NOT_RUNNING', object: socketPath, retry: 'later' } })
  writeFileSync(socketPath, '')
  t.match(await runCli(['volume', 'list'], { socketPath }), { code: 1, stderr: /^tidemark: .*AGENT_NOT_RUNNING.*\n$/ })
  const default_ = await runCli(['volume', 'list', '--agent', `/${'x'.repeat(200)}/agent.sock`])
  t.match(default_, { code: 1, stderr: /^tidemark: .*\n$/ })
})

t.test('a socket of another user gets no request', { skip: process.geteuid?.() !== 0 }, async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  chmodSync(socketPath, 0o666)
  chownSync(socketPath, 65534, 65534)
  // Root trusts its own sockets only; nobody's is nobody's.
  const outcome = await runCli(['destination', 'add', 'd', '--pairing', 'secret'], { socketPath })
  t.match(outcome, { code: 1, stderr: /SOCKET_NOT_TRUSTED/ })
  t.same(operations.calls, [])
})

t.test('whatever answers that is no agent is named so', async (t) => {
  const socketPath = path.join(privateFolder(t), 'agent.sock')
  // The last is what an agent that is just ending answers.
  const answers: [http.RequestListener, RegExp][] = [
    [(_, response) => response.end('<html>'), /^tidemark: agent .*NOT_AN_AGENT.*\n$/],
    [(_, response) => response.writeHead(404).end('{"no":"error"}'), /^tidemark: agent .*NOT_AN_AGENT.*\n$/],
    [(_, response) => response.writeHead(500).end('{"error":{"code":7}}'), /^tidemark: agent .*NOT_AN_AGENT.*\n$/],
    [(_, response) => response.destroy(), /^tidemark: agent .*AGENT_LOST.*\n$/],
    [
      (_, response) => response.writeHead(503).end('{"error":"Service Unavailable","statusCode":503}'),
      /^tidemark: agent .*AGENT_LOST \(the agent is stopping\).*\n$/,
    ],
  ]
  let [answer, message] = answers[0]!
  const server = http.createServer((request, response) => answer(request, response))
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  t.teardown(() => server.close())
  for ([answer, message] of answers) {
    const outcome = await runCli(['volume', 'list'], { socketPath })
    t.match(outcome, { code: 1, stdout: '', stderr: message })
  }
})
