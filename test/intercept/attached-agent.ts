/** A program that attaches a volume, prints its device and waits to be killed. Usage: BACKING MOUNT-POINT */
import { intercept } from '../../src/intercept/intercept.js'

const [backing, mountPoint] = process.argv.slice(2)
const volume = intercept.openVolume({
  name: 'killed',
  path: backing!,
  sizeBytes: 0,
  direct: false,
  readOnly: false,
  syncBacking: false,
  threads: 2,
})
const { device } = await volume.attach(mountPoint!)
console.log(device)
setInterval(() => volume.counters(), 1000)
