#!/usr/bin/env node
/**
 * Enforces the map in src/README.md: who may import whom, one importer for each third-party package, Node-API in
 * native/binding alone, and the size and naming rules of the house. Prints one line a finding; exit 1 if there is one.
 *
 * Usage: check-imports.mjs [ROOT]
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const typescriptLineLimit = 400
const nativeLineLimit = 600
const vagueName = /(^|[-_.])(utils?|helpers?|managers?|misc)([-_.]|$)/
const builtins = new Set(builtinModules)

const root = resolve(process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..'))
const findings = []

/** Folder to the folders it may import: name to 'values' or 'types'. */
function readTable() {
  const text = readFileSync(join(root, 'src/README.md'), 'utf8')
  const start = text.indexOf('| folder | may import |')
  if (start < 0) throw new Error('src/README.md has no table "| folder | may import |"')
  const table = new Map()
  for (const row of text.slice(start).split('\n').slice(2)) {
    const cells = /^\|\s*([\w-]+)\s*\|\s*(.+?)\s*\|$/.exec(row)
    if (!cells) break
    const allowed = new Map()
    for (const entry of cells[2] === 'nothing' ? [] : cells[2].split(/,\s*/)) {
      const match = /^([\w-]+)(\s+\(types\))?$/.exec(entry)
      if (!match) throw new Error(`src/README.md: cannot read "${entry}" in the row of ${cells[1]}`)
      allowed.set(match[1], match[2] ? 'types' : 'values')
    }
    table.set(cells[1], allowed)
  }
  return table
}

function filesBelow(folder, pattern) {
  const from = join(root, folder)
  if (!existsSync(from)) return []
  return readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort()
}

/** Every import of a TypeScript file: { specifier, typesOnly, dynamic, line }. Comments are blanked first. */
function importsOf(source) {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, (text) => text.replace(/[^\n]/g, ' ')).replace(/^\s*\/\/.*$/gm, '')
  const found = []
  const line = (index) => code.slice(0, index).split('\n').length
  const statements = /^\s*(?:import|export)\s+(type\s+)?([^'"`;]*?\bfrom\s*)?['"]([^'"]+)['"]/gm
  for (const match of code.matchAll(statements)) {
    const names = /\{([^}]*)\}/.exec(match[2] ?? '')
    const inlineTypes = names?.[1]
      .split(',')
      .map((name) => name.trim())
      .filter(Boolean)
      .every((name) => name.startsWith('type '))
    const bare = match[2]?.trim().startsWith('{') ?? false
    found.push({
      specifier: match[3],
      typesOnly: Boolean(match[1]) || (bare && Boolean(inlineTypes)),
      dynamic: false,
      line: line(match.index + match[0].search(/\S/)),
    })
  }
  for (const match of code.matchAll(/\b(?:import|require|require\.resolve)\(\s*['"]([^'"]+)['"]/g)) {
    found.push({ specifier: match[1], typesOnly: false, dynamic: true, line: line(match.index) })
  }
  return found
}

const packageOf = (specifier) =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

function checkImports(table) {
  const importers = new Map()
  for (const folder of readdirSync(join(root, 'src'), { withFileTypes: true })) {
    if (folder.isDirectory() && !table.has(folder.name) && filesBelow(`src/${folder.name}`, /\.ts$/).length > 0)
      findings.push(`src/${folder.name}: not in the import table of src/README.md`)
  }
  for (const file of filesBelow('src', /\.ts$/)) {
    const from = file.split(sep).length > 2 ? file.split(sep)[1] : undefined
    for (const entry of importsOf(readFileSync(join(root, file), 'utf8'))) {
      const at = `${file}:${entry.line}`
      if (entry.specifier.startsWith('node:')) continue
      if (!entry.specifier.startsWith('.')) {
        if (builtins.has(entry.specifier)) {
          findings.push(`${at}: write node:${entry.specifier}`)
          continue
        }
        const name = packageOf(entry.specifier)
        importers.set(name, (importers.get(name) ?? new Set()).add(file))
        continue
      }
      if (!/\.(js|json)$/.test(entry.specifier) && !entry.dynamic)
        findings.push(`${at}: relative imports end in .js: ${entry.specifier}`)
      const target = relative(root, resolve(root, dirname(file), entry.specifier)).split(sep)
      if (target[0] !== 'src') continue
      const to = target.length > 2 ? target[1] : undefined
      if (to === from) continue
      if (from === undefined) {
        if (!entry.dynamic && to !== 'cli') findings.push(`${at}: ${file} loads ${to} dynamically or not at all`)
        continue
      }
      if (to === undefined) {
        findings.push(`${at}: ${from} may not import ${target.join('/')}`)
        continue
      }
      const allowed = table.get(from)?.get(to)
      if (!allowed) findings.push(`${at}: ${from} may not import ${to}`)
      else if (allowed === 'types' && !entry.typesOnly) findings.push(`${at}: ${from} may import only types of ${to}`)
    }
  }
  for (const [name, files] of importers) {
    if (files.size > 1) findings.push(`${name} has ${files.size} importers, one is allowed: ${[...files].join(', ')}`)
  }
}

function checkNative() {
  for (const file of filesBelow('native', /\.(cc|cpp|h|hpp)$/)) {
    const text = readFileSync(join(root, file), 'utf8')
    const binding = file.startsWith(join('native', 'binding') + sep)
    const inclusion = /^\s*#\s*include\s*[<"](napi\.h|node_api\.h|node\.h|v8\.h|uv\.h)[>"]/m.exec(text)
    if (inclusion && !binding) findings.push(`${file}: only native/binding may include ${inclusion[1]}`)
    if (!text.startsWith('// SPDX-License-Identifier: Apache-2.0')) findings.push(`${file}: no SPDX line`)
  }
}

function checkShape() {
  const limits = [
    ['src', /\.ts$/, typescriptLineLimit],
    ['native', /\.(cc|cpp|h|hpp)$/, nativeLineLimit],
  ]
  for (const [folder, pattern, limit] of limits) {
    for (const file of filesBelow(folder, pattern)) {
      const lines = readFileSync(join(root, file), 'utf8').split('\n').length - 1
      if (lines > limit) findings.push(`${file}: ${lines} lines, at most ${limit}: split it by idea`)
      const vague = file.split(sep).find((part) => vagueName.test(part))
      if (vague) findings.push(`${file}: "${vague}" says nothing, name the idea`)
    }
  }
}

checkImports(readTable())
checkNative()
checkShape()
for (const finding of findings) console.log(finding)
if (findings.length > 0) {
  console.log(`${findings.length} findings. The import table is in src/README.md.`)
  process.exit(1)
}
