import type { Images } from './images.js'
import type { InboundPosition } from './inbound-state.js'

export const tornReason =
  'what is shown is no state of the source until this generation is complete: the one before was given up within an epoch'

/** No epoch is left that was cut short: what readers find is a state of the source. */
export function showsState(position: InboundPosition): boolean {
  return whyNoState(position) === undefined
}

/** undefined: what readers find is a state of the source. */
export function whyNoState({ torn, intent, appliedEpoch }: InboundPosition): string | undefined {
  if (torn) return tornReason
  return intent > appliedEpoch ? `epoch ${appliedEpoch + 1} of its stream is applied in part` : undefined
}

/**
 * Whether what is shown stays without a state of the source when this generation is given up as it is now. What was being
 * changed beside the images that are shown did them no harm, up to the first that took its place.
 */
export async function tornWhenGivenUp(position: InboundPosition, images: Pick<Images, 'isInPlace'>): Promise<boolean> {
  const { torn = false, intent, appliedEpoch, consistent, volumes } = position
  if (torn || intent <= appliedEpoch) return torn
  if (consistent) return true
  const inPlace = await Promise.all(volumes.map((volume) => images.isInPlace(volume)))
  return inPlace.includes(true)
}
