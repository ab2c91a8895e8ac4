import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CATALOG_HEADER_BYTES, CATALOG_MAGIC, CATALOG_VERSION, catalogFields } from '../../src/pool/catalog-codec.js'
import { labelOffsets, recordBytes, slotLimit, superblockOffsets, unitsPerMapPage } from '../../src/pool/geometry.js'
import { LABEL_HEADER_BYTES, LABEL_MAGIC, LABEL_VERSION, labelFields } from '../../src/pool/label.js'
import { operationTextLimit, recordFields, recordType } from '../../src/pool/log-record.js'
import {
  SUPERBLOCK_HEADER_BYTES,
  SUPERBLOCK_MAGIC,
  SUPERBLOCK_VERSION,
  superblockFields,
} from '../../src/pool/superblock.js'
import {
  MAP_PAGE_MAGIC,
  MAP_PAGE_VERSION,
  mapEntryBytes,
  mapEntryFields,
  mapPageFields,
  mapPageHeaderBytes,
} from '../../src/pool/unit-map.js'
import { UNIT_PAGE_MAGIC, UNIT_PAGE_VERSION, unitPageFields, unitPageHeaderBytes } from '../../src/pool/unit-page.js'
import { repositoryRoot } from '../fixtures/paths.js'

const document = readFileSync(join(repositoryRoot, 'src/pool/FORMAT.md'), 'utf8')
const native = readFileSync(join(repositoryRoot, 'native/pool/mapping_log.h'), 'utf8')

function sectionOf(heading: string): string {
  const section = document.slice(document.indexOf(`\n${heading}`) + heading.length + 1)
  return section.slice(0, section.search(/\n## |\nEntry of a unit:/) + 1 || undefined)
}

/** The named rows of the first table under a heading, as { field: { offset, size } }. */
function table(heading: string): Record<string, { offset: number; size: number }> {
  const rows = sectionOf(heading).matchAll(/^\| (\d+) \| (\d+) \| (\w+) \|/gm)
  return Object.fromEntries([...rows].map(([, offset, size, field]) => [field, { offset: +offset!, size: +size! }]))
}

t.test('the tables of FORMAT.md are the fields of the code', async (t) => {
  t.strictSame(table('## Label'), labelFields)
  t.strictSame(table('## Superblock'), superblockFields)
  t.strictSame(table('## Catalog'), catalogFields)
  t.strictSame(table('## Unit map page'), mapPageFields)
  t.strictSame(table('Entry of a unit:'), mapEntryFields)
  t.strictSame(table('## Unit page'), unitPageFields)
  t.strictSame(table('## The mapping log'), recordFields)
})

t.test('the magics, versions and lengths of FORMAT.md are those of the code', async (t) => {
  for (const [heading, magic, version, headerLength] of [
    ['## Label', LABEL_MAGIC, LABEL_VERSION, LABEL_HEADER_BYTES],
    ['## Superblock', SUPERBLOCK_MAGIC, SUPERBLOCK_VERSION, SUPERBLOCK_HEADER_BYTES],
    ['## Catalog', CATALOG_MAGIC, CATALOG_VERSION, CATALOG_HEADER_BYTES],
    ['## Unit map page', MAP_PAGE_MAGIC, MAP_PAGE_VERSION, undefined],
    ['## Unit page', UNIT_PAGE_MAGIC, UNIT_PAGE_VERSION, undefined],
  ] as const) {
    const section = sectionOf(heading)
    t.match(section, `| magic | \`${magic}\` |`)
    t.match(section, `| version | ${version} |`)
    if (headerLength !== undefined) t.match(section, `| headerLength | ${headerLength} |`)
  }
  t.match(sectionOf('## Unit map page'), `| ${mapPageHeaderBytes} | ${unitsPerMapPage} * ${mapEntryBytes} |`)
  t.match(sectionOf('## Unit page'), `| ${unitPageHeaderBytes} | 8 * slots |`)
  t.match(document, `8 to ${slotLimit} blocks`)
  t.match(document, `longer than ${operationTextLimit.toLocaleString('en')} bytes`)
  const places = sectionOf('## Where everything lies')
  for (const [at, slot] of ['A', 'B'].entries()) {
    t.match(places, new RegExp(`\\| ${labelOffsets[at]} \\| 4096 \\| every device \\| label ${slot} `))
    t.match(places, new RegExp(`\\| ${superblockOffsets[at]} \\| 4096 \\| device 0 \\| superblock ${slot} `))
  }
})

t.test('the record types of FORMAT.md are those of the code, here and in native code', async (t) => {
  const types = /type \| ([^|]+) \|/.exec(sectionOf('## The mapping log'))![1]!.matchAll(/(\d) ([A-Z]+)/g)
  t.strictSame(Object.fromEntries([...types].map(([, number, name]) => [name!.toLowerCase(), +number!])), recordType)
  for (const [name, number] of Object.entries(recordType)) t.match(native.toLowerCase(), `k${name} = ${number}`)
  t.match(native, `sizeof(LogRecord) == ${recordBytes}`)
})
