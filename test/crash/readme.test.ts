import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { designTable } from '../fixtures/design-table.js'
import { repositoryRoot } from '../fixtures/paths.js'

const tables: [string, string, number][] = [
  ['scenario', 'what happens', 25],
  ['attack', 'attack', 60],
]

for (const [kind, column, rowsAtLeast] of tables) {
  t.test(`each ${kind} of the README has the test it names`, async (t) => {
    const rows = designTable('test/crash/README.md', `| | ${column} | file |`)
    t.ok(rows.length > rowsAtLeast, `${rows.length} rows`)
    for (const row of rows) {
      const file = join(repositoryRoot, 'test/crash', `${row.file!.replaceAll('`', '')}.ts`)
      t.ok(existsSync(file), file)
      const titles = [...readFileSync(file, 'utf8').matchAll(/t\.test\(\s*(['"`])([\s\S]*?)\1,/g)].map(
        ([, , title]) => title!,
      )
      t.ok(
        titles.some((title) => title.includes(row['its fact']!)),
        `${row[column]}: "${row['its fact']}" in ${file}`,
      )
    }
  })
}
