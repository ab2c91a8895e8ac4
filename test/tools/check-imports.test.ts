import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

const table = `# Map

| folder | may import |
|---|---|
| block | nothing |
| journal | block |
| api | block |
| cli | block, api (types) |

The rest.
`
const root = scratchFolder(t, 'imports')

function check(files: Record<string, string>): { findings: string[]; code: number | null } {
  rmSync(join(root, 'src'), { recursive: true, force: true })
  rmSync(join(root, 'native'), { recursive: true, force: true })
  for (const [name, text] of Object.entries({ 'src/README.md': table, ...files })) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text)
  }
  const run = spawnSync(process.execPath, [join(repositoryRoot, 'tools/check-imports.mjs'), root], { encoding: 'utf8' })
  return { findings: run.stdout.trim().split('\n').slice(0, -1), code: run.status }
}

t.test('what the table allows passes', async (t) => {
  const { code, findings } = check({
    'src/block/a.ts': "import { readFileSync } from 'node:fs'\n",
    'src/journal/b.ts': "import { a } from '../block/a.js'\nimport pino from 'pino'\nimport './c.js'\n",
    'src/cli/d.ts': "import type { E } from '../api/e.js'\nimport { type F } from '../api/e.js'\n",
    'src/main.ts': "import { d } from './cli/d.js'\nconst { b } = await import('./journal/b.js')\n",
    'src/journal/commented.ts': "// import '../cli/d.js'\n/* import x from 'pino'\nimport '../cli/d.js' */\n",
    'native/binding/addon.cc': '// SPDX-License-Identifier: Apache-2.0\n#include <napi.h>\n',
  })
  t.same(findings, [])
  t.equal(code, 0)
})

const refused: [string, Record<string, string>, RegExp][] = [
  [
    'an import against the table',
    { 'src/block/a.ts': "import { b } from '../journal/b.js'\n" },
    /a\.ts:1: block may not/,
  ],
  [
    'a re-export against the table',
    { 'src/block/a.ts': "\nexport * from '../journal/b.js'\n" },
    /a\.ts:2: block may not/,
  ],
  ['a type import against the table', { 'src/block/a.ts': "import type { B } from '../journal/b.js'\n" }, /may not/],
  [
    'a dynamic import against the table',
    { 'src/block/a.ts': "await import('../journal/b.js')\n" },
    /may not import journal/,
  ],
  [
    'an import that goes over several lines',
    { 'src/block/a.ts': "import {\n  b,\n  c,\n} from '../journal/b.js'\n" },
    /block may not import journal/,
  ],
  [
    'a value where only types are allowed',
    { 'src/cli/a.ts': "import { b } from '../api/b.js'\n" },
    /only types of api/,
  ],
  [
    'a static import of a folder by main',
    { 'src/main.ts': "import { b } from './api/b.js'\n" },
    /loads api dynamically/,
  ],
  ['a folder that is not in the table', { 'src/pool/a.ts': '' }, /pool: not in the import table/],
  ['a relative import without .js', { 'src/block/a.ts': "import './b'\n" }, /end in \.js/],
  ['a builtin without node:', { 'src/block/a.ts': "import fs from 'fs'\n" }, /write node:fs/],
  [
    'a second importer of a package',
    { 'src/block/a.ts': "import x from '@s/p/deep'\n", 'src/block/b.ts': "import y from '@s/p'\n" },
    /@s\/p has 2 importers/,
  ],
  [
    'Node-API outside of the binding',
    { 'native/journal/a.h': '// SPDX-License-Identifier: Apache-2.0\n#include "napi.h"\n' },
    /only native\/binding/,
  ],
  ['C++ without its licence line', { 'native/journal/a.cc': 'int a;\n' }, /no SPDX line/],
  ['a file that is too long', { 'src/block/a.ts': 'x\n'.repeat(401) }, /401 lines/],
  ['a name that says nothing', { 'src/block/path-utils.ts': '' }, /says nothing/],
]
for (const [title, files, finding] of refused) {
  t.test(`${title} is refused`, async (t) => {
    const { code, findings } = check(files)
    t.equal(code, 1)
    t.equal(findings.length, 1)
    t.match(findings[0], finding)
  })
}
