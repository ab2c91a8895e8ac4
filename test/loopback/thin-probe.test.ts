import { execFileSync } from 'node:child_process'
import t from 'tap'
import { mirror } from '../fixtures/agent.js'
import { farPath } from '../fixtures/sites.js'
import { farPool, poolFacts, sourcePool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const sites = await twoThinSites(t)
const { source, destination } = sites
t.test('x', async (t) => {
  const device = await thinVolume(source, 'sparse', '64GiB')
  t.comment('after attach', (await poolFacts(source, sourcePool)).mappedBytes)
  for (const [offset, count] of [
    ['0', '4'],
    ['40G', '3'],
  ]) {
    execFileSync('dd', ['if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${count}`, `seek=${offset}B`, 'oflag=direct', 'status=none'])
  }
  t.comment('source', (await poolFacts(source, sourcePool)).mappedBytes)
  await mirror(source, 'sparse', ['sparse'])
  t.comment('far', (await poolFacts(destination, farPool)).mappedBytes, 'source', (await poolFacts(source, sourcePool)).mappedBytes)
  const far = await farPath(sites, 'sparse')
  t.comment(execFileSync('python3', ['-c', `
import os,sys
for p in sys.argv[1:]:
    fd=os.open(p,os.O_RDONLY); at=0; out=[]
    while True:
        try: d=os.lseek(fd,at,os.SEEK_DATA)
        except OSError: break
        h=os.lseek(fd,d,os.SEEK_HOLE); out.append((d,h)); at=h
    print(p,out)
`, device, far]).toString())
})
