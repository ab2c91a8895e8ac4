import { faultsMeasure } from './measures/faults.js'
import { foldMeasure } from './measures/fold.js'
import { idleMeasure } from './measures/idle.js'
import { initializeMeasure } from './measures/initialize.js'
import type { Measure } from './measures/measure.js'
import { recoveryMeasure } from './measures/recovery.js'
import { sizesMeasure } from './measures/sizes.js'
import { streamRatesMeasure } from './measures/stream-rates.js'

/** What is measured beside the rows, in this order. */
export const measures: readonly Measure[] = [
  initializeMeasure,
  foldMeasure,
  idleMeasure,
  sizesMeasure,
  recoveryMeasure,
  faultsMeasure,
  streamRatesMeasure,
]
