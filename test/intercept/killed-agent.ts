/**
 * A program that goes on with a kept device, or begins one, prints it and is killed by itself so long after it began to serve.
 * Usage: KEEPER-DIRECTORY BACKING MOUNT-POINT MICROSECONDS (0: it goes on)
 */
import { intercept } from '../../src/intercept/intercept.js'

const [directory, backing, mountPoint, microseconds] = process.argv.slice(2)
await intercept.openKeeper({ directory: directory!, onEvent: () => undefined })
const volume = intercept.openVolume({
  name: 'killed',
  path: backing!,
  sizeBytes: 0,
  direct: false,
  readOnly: false,
  syncBacking: false,
  threads: 16,
})
const { device } = await volume.attach(mountPoint!)
if (Number(microseconds) > 0) {
  const end = performance.now() + Number(microseconds) / 1000
  while (performance.now() < end);
  process.kill(process.pid, 'SIGKILL')
}
console.log(device)
setInterval(() => volume.counters(), 1000)
