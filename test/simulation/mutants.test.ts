/** The simulation is judged: a rule that is wrong in a known way breaks one of its invariants. */
import t from 'tap'
import type { HeldPart, SequencePlan } from '../../src/destage/sequencer.js'
import { newSeed } from '../pool/model/random.js'
import { type Rules, rules } from './rules.js'
import { simulate } from './simulation.js'

const runs = 100
const steps = 20_000
const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)

const notTheSource = /what is shown is the source/
const notEqual = /what is shown is the source|the end is equal/

const mutants: [title: string, foundBy: RegExp, mutant: Partial<Rules>][] = [
  ['an epoch is applied while the one before is missing', /epochs go in order/, { planSequence: passOver() }],
  ['an epoch is taken for the one that is missing', notTheSource, { planSequence: passOver(asEpoch) }],
  ['the last part of an epoch is left out', /an epoch is whole/, { planSequence: leaveOut() }],
  ['an epoch without its last part is taken for whole', notTheSource, { planSequence: leaveOut(asWhole) }],
  [
    'an epoch whose end is no state is taken for one',
    notTheSource,
    {
      planSequence: (position, held, limits) =>
        rules.planSequence(
          position,
          [...held].map((part) => ({ ...part, initializing: false })),
          limits,
        ),
    },
  ],
  [
    'an epoch is acknowledged when it begins to be applied',
    /nothing is taken for applied/,
    { acknowledged: ({ appliedEpoch, intent }) => Math.max(appliedEpoch, intent) },
  ],
  [
    'an initialisation leaves out the last that it has to copy',
    notEqual,
    {
      planCopy: (volumes, cursor) => {
        const { pieces, next } = rules.planCopy(volumes, cursor)
        return { pieces: pieces.slice(0, -1), next }
      },
    },
  ],
  ['a copy that read ahead counts as a state at once', notTheSource, { copyEnd: (recordedLsn) => recordedLsn }],
  ['a new generation overwrites the image that is shown', notTheSource, { nextImage: (shown) => shown }],
  [
    'epochs that are to appear at once wait for room that nothing makes',
    /no end/,
    {
      planCut: (facts) => {
        const decision = rules.planCut(facts)
        return decision === 'let-go' ? 'buffer-full' : decision
      },
    },
  ],
]

for (const [title, foundBy, mutant] of mutants) {
  t.test(`${title}: within ${runs} runs it is found out`, async (t) => {
    const found = await firstFailure(mutant)
    t.comment(found?.split('\n')[0] ?? 'never')
    t.match(found, foundBy)
  })
}

/** The seed, the step and the invariant; undefined: all runs have come to their end. */
async function firstFailure(mutant: Partial<Rules>): Promise<string | undefined> {
  for (let run = 0; run < runs; run += 1) {
    try {
      await simulate(seed + run, steps, { ...rules, ...mutant })
    } catch (error) {
      return (error as Error).message
    }
  }
  return undefined
}

type Change = (part: HeldPart, place: { readonly epoch: number; readonly partCount: number }) => HeldPart

function asEpoch(part: HeldPart, { epoch }: { readonly epoch: number }): HeldPart {
  return { ...part, epoch }
}

function asWhole(part: HeldPart, { partCount }: { readonly partCount: number }): HeldPart {
  return { ...part, partCount }
}

/** When the next epoch is not here, and the one behind it is, that one. */
function passOver(change: Change = (part) => part): Rules['planSequence'] {
  return (position, held, limits) => {
    const all = [...held]
    const plan = rules.planSequence(position, all, limits)
    if (plan.apply.length > 0 || plan.generation > position.generation) return plan
    const epoch = position.appliedEpoch + 1
    const behind = rules.planSequence({ ...position, appliedEpoch: epoch }, all, { ...limits, epochs: 1 })
    return withParts(plan, behind.apply, (parts) =>
      parts.map((part) => change(part, { epoch, partCount: parts.length })),
    )
  }
}

function leaveOut(change: Change = (part) => part): Rules['planSequence'] {
  return (position, held, limits) => {
    const plan = rules.planSequence(position, held, limits)
    return withParts(plan, plan.apply, (parts) =>
      parts.length === 1
        ? parts
        : parts.slice(0, -1).map((part) => change(part, { epoch: part.epoch, partCount: parts.length - 1 })),
    )
  }
}

function withParts(
  plan: SequencePlan,
  apply: SequencePlan['apply'],
  change: (parts: readonly HeldPart[]) => readonly HeldPart[],
): SequencePlan {
  return { ...plan, apply: apply.map(change) }
}
