#!/usr/bin/env node
/**
 * Reads the raw output of tap on standard input and prints what a person wants to see: a line a test file, and
 * what its failed facts said. Counts facts (the tests with a title directly in a file; a file that dies or fails
 * outside of them is one failure) and writes "PASSED FAILED" to the file named by the first argument.
 *
 * A skipped test is a failure, unless its title is in `maySkip`: nothing is skipped silently, however deep it lies.
 */
import { writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** Titles of tests that may be skipped, with the reason. */
const maySkip = new Map([])

const result = /^( *)(not )?ok \d+(?: - (.*?))?(?: # (time=|SKIP|TODO)(.*?))?(?: \{)?$/i
let passed = 0
let failed = 0
/**
 * `kept`: what the failed facts said; `recent`: what was said since the last fact; `skipped`: what was skipped inside
 * of the fact that has not ended yet.
 */
const emptyFile = () => ({ kept: [], recent: [], passed: 0, failed: 0, notes: [], skipped: [] })
let file = emptyFile()
let yamlIndent = -1
let ended = false

for await (const line of createInterface({ input: process.stdin })) {
  file.recent.push(line)
  const indent = line.length - line.trimStart().length
  if (yamlIndent >= 0) {
    // The file that ran out of time is named only here.
    const expired = /^ {2,4}expired: (.*)/.exec(line)
    if (expired) console.log(`          out of time: ${expired[1]}`)
    if (line.trim() === '...' && indent === yamlIndent) yamlIndent = -1
    continue
  }
  if (line.trim() === '---') {
    yamlIndent = indent
    continue
  }
  if (/^# \{ total: /.test(line)) ended = true
  const match = result.exec(line)
  if (!match) continue
  const [, , not, title = '', directive = ''] = match
  const skipped = /^(skip|todo)$/i.test(directive) && !maySkip.has(title)
  if (indent > 4) {
    if (skipped) file.skipped.push(title)
  } else if (indent === 4) {
    if (not || skipped || file.skipped.length > 0) {
      file.kept.push(...file.recent)
      file.failed++
      if (not || skipped) file.notes.push(`${skipped ? 'skipped' : 'not ok'}: ${title}`)
      noteSkipped(title)
    } else file.passed++
    file.recent = []
  } else endFile(title, Boolean(not) || skipped, directive === 'time=' ? match[5] : '')
}
if (!ended) {
  failed++
  console.log('not ok  tap ended before its summary')
  process.stdout.write(`${[...file.kept, ...file.recent].join('\n')}\n`)
}
writeFileSync(process.argv[2], `${passed} ${failed}\n`)
process.exitCode = failed === 0 ? 0 : 1

function noteSkipped(fact) {
  for (const title of file.skipped.splice(0)) file.notes.push(`skipped: ${title}, in: ${fact}`)
}

function endFile(title, bad, time) {
  if (file.skipped.length > 0) {
    // Skipped inside of a fact that never ended, or after the line that named it.
    file.failed++
    noteSkipped(title)
  }
  if (bad && file.failed === 0) {
    file.failed = 1
    file.notes.push('not ok: the file itself (it died, ran out of time or has no test)')
  }
  passed += file.passed
  failed += file.failed
  const name = title.replace(/^dist\//, '').replace(/\.js$/, '')
  const seconds = (Number.parseFloat(time || '0') / (/[\d.]ms/.test(time) ? 1000 : 1)).toFixed(1)
  const facts = `${file.passed} passed${file.failed ? `, ${file.failed} FAILED` : ''}`
  console.log(`${file.failed ? 'not ok' : 'ok    '}  ${name}  (${facts}, ${seconds} s)`)
  for (const note of file.notes) console.log(`          ${note}`)
  const said = [...file.kept, ...file.recent]
  if (file.failed) process.stdout.write(`${said.map((text) => `    ${text}`).join('\n')}\n`)
  file = emptyFile()
}
