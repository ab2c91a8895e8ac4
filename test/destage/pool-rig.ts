import type { Test } from 'tap'
import { PoolImages } from '../../src/destage/pool-images.js'
import { FakeThinPool, fakeThinVolumes } from '../fixtures/fake-thin-pool.js'
import { InboundRig } from './inbound-rig.js'

/**
 * An arriving stream whose images lie in a pool that may be away.
 *
 * @param directory where what the pool holds lies; default: in the folder of the rig
 */
export function rigOnPool(t: Test, directory?: string) {
  const volumes = fakeThinVolumes()
  let pool: FakeThinPool | undefined
  let isAway = false
  const rig = new InboundRig(t, (folder) => {
    const made = new FakeThinPool(directory ?? folder)
    pool = made
    return new PoolImages({
      poolName: 'p',
      pool: () => (isAway ? undefined : made),
      poolOf: (id) => (isAway || id !== made.id ? undefined : made),
      volume: (open, name) => volumes.get(open, name),
      forget: () => {},
      isTaken: () => false,
    })
  })
  const setAway = (away: boolean): void => {
    isAway = away
  }
  return { rig, pool: () => pool!, setAway }
}
