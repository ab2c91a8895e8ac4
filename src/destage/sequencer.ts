/** A part that has arrived and whose seal was found whole. */
export interface HeldPart {
  readonly generation: number
  readonly epoch: number
  readonly part: number
  readonly partCount: number
  readonly initializing: boolean
  readonly rawBytes: number
  /** It says what the images hold at the end of its epoch. */
  readonly hasDigests?: boolean
  /** Its name in the arrival buffer. */
  readonly name: string
}

export interface SequencePosition {
  readonly generation: number
  readonly appliedEpoch: number
  /** What is applied is a state of the source. */
  readonly consistent: boolean
}

export interface SequencePlan {
  /** The generation the parts below belong to; above the position's: begin it first. */
  readonly generation: number
  /**
   * Complete epochs to apply now, in order, each with its parts in order; empty when the next one is not complete.
   * One with digests is the last: an attempt that fails must not leave what is later in the images it is compared with.
   * Where a state is shown the last of them makes the next state: one whose end is none waits for those that follow.
   */
  readonly apply: readonly (readonly HeldPart[])[]
  /** Parts of the next epochs that are missing although something later is here. */
  readonly missing: readonly { readonly epoch: number; readonly part: number }[]
  /** Parts that nobody will need: of an older generation, or applied already. */
  readonly obsolete: readonly HeldPart[]
}

/** Applied with one sync at the most. */
export interface BatchLimits {
  readonly epochs: number
  readonly rawBytes: number
}

/** Missing parts named in one plan, at the most. */
export const MISSING_LIMIT = 64

/**
 * What to do next with what has arrived, whatever the order it came in: the next epoch is applied only when all its
 * parts are here, and never before the one before it.
 */
export function planSequence(position: SequencePosition, held: Iterable<HeldPart>, limits: BatchLimits): SequencePlan {
  const all = [...held]
  const generation = all.reduce((newest, { generation }) => Math.max(newest, generation), position.generation)
  const applied = generation === position.generation ? position.appliedEpoch : 0
  const isObsolete = (part: HeldPart): boolean => part.generation < generation || part.epoch <= applied
  const epochs = new Map<number, Map<number, HeldPart>>()
  for (const part of all) {
    if (isObsolete(part)) continue
    const parts = epochs.get(part.epoch) ?? new Map<number, HeldPart>()
    epochs.set(part.epoch, parts.set(part.part, part))
  }
  const consistent = position.consistent && generation === position.generation
  const apply = nextEpochs(applied + 1, epochs, limits, consistent)
  const missing = missingParts(applied + apply.length + 1, epochs)
  return { generation, apply, missing, obsolete: all.filter(isObsolete) }
}

function nextEpochs(
  first: number,
  epochs: ReadonlyMap<number, ReadonlyMap<number, HeldPart>>,
  limits: BatchLimits,
  consistent: boolean,
): HeldPart[][] {
  const batch: HeldPart[][] = []
  let rawBytes = 0
  for (let epoch = first; batch.length < limits.epochs; epoch++) {
    const ordered = wholeEpoch(epochs.get(epoch))
    const one = ordered?.[0]
    if (!ordered || !one) break
    if (one.initializing && consistent) return batch.length > 0 ? batch : nextState(epoch, epochs)
    rawBytes += ordered.reduce((sum, part) => sum + part.rawBytes, 0)
    const changesState = batch.length > 0 && batch[0]![0]!.initializing !== one.initializing
    if (batch.length > 0 && (rawBytes > limits.rawBytes || changesState)) break
    batch.push(ordered)
    if (ordered.some(({ hasDigests }) => hasDigests)) break
  }
  return batch
}

/** All up to the one whose end is a state, however many; none when one of them is not here. */
function nextState(first: number, epochs: ReadonlyMap<number, ReadonlyMap<number, HeldPart>>): HeldPart[][] {
  const group: HeldPart[][] = []
  for (let epoch = first; ; epoch++) {
    const ordered = wholeEpoch(epochs.get(epoch))
    if (!ordered) return []
    group.push(ordered)
    if (!ordered[0]!.initializing) return group
  }
}

/** The last epoch up to which all parts are held, though none of them can be applied; the applied one: none is. */
export function receivedUpTo(position: SequencePosition, held: Iterable<HeldPart>): number {
  const counts = new Map<number, number>()
  for (const { generation, epoch, partCount } of held) {
    if (generation === position.generation) counts.set(epoch, (counts.get(epoch) ?? partCount) - 1)
  }
  let last = position.appliedEpoch
  while (counts.get(last + 1) === 0) last += 1
  return last
}

/** Its parts in order, or undefined when one is missing. */
function wholeEpoch(parts: ReadonlyMap<number, HeldPart> | undefined): HeldPart[] | undefined {
  const one = parts?.values().next().value
  if (!parts || !one || parts.size < one.partCount) return undefined
  return [...parts.values()].sort((a, b) => a.part - b.part)
}

function missingParts(
  first: number,
  epochs: ReadonlyMap<number, ReadonlyMap<number, HeldPart>>,
): { epoch: number; part: number }[] {
  const last = Math.max(0, ...epochs.keys())
  const missing: { epoch: number; part: number }[] = []
  for (let epoch = first; epoch <= last && missing.length < MISSING_LIMIT; epoch++) {
    const parts = epochs.get(epoch)
    const partCount = parts?.values().next().value?.partCount ?? 1
    for (let part = 0; part < partCount && missing.length < MISSING_LIMIT; part++) {
      if (!parts?.has(part)) missing.push({ epoch, part })
    }
  }
  return missing
}
