/** What is done to every row. fio's words; `figure` is what of its answer counts. */
export interface Workload {
  readonly id: string
  readonly title: string
  readonly figure: 'iops' | 'MiB/s'
  readonly options: Readonly<Record<string, string | number>>
  /** Part of `--quick`. */
  readonly quick?: boolean
  /** Also measured with the backing opened O_DIRECT. */
  readonly direct?: boolean
  /** Every run begins with a fresh snapshot: rows that have none do not take part. */
  readonly afterSnapshot?: boolean
  /** Only reads: what a stream does is not asked for. */
  readonly reads?: boolean
}

const depths = [1, 8, 32]
const size4k = { bs: '4k', norandommap: 1 }

const writes = depths.map(
  (depth): Workload => ({
    id: `write-4k-d${depth}`,
    title: `4 KiB random write, depth ${depth}`,
    figure: 'iops',
    options: { ...size4k, rw: 'randwrite', iodepth: depth },
    quick: depth !== 8,
    direct: depth !== 8,
  }),
)

const reads = depths.map(
  (depth): Workload => ({
    id: `read-4k-d${depth}`,
    title: `4 KiB random read, depth ${depth}`,
    figure: 'iops',
    options: { ...size4k, rw: 'randread', iodepth: depth },
    quick: depth === 32,
    direct: depth !== 8,
    reads: true,
  }),
)

const syncs = [1, 32].map(
  (each): Workload => ({
    id: `write-4k-fsync${each}`,
    title: each === 1 ? '4 KiB random write, fsync each' : `4 KiB random write, fsync every ${each}`,
    figure: 'iops',
    options: { ...size4k, rw: 'randwrite', iodepth: 1, fsync: each },
  }),
)

const sequences = (['64k', '1m'] as const).flatMap((bs): Workload[] => {
  const name = bs === '1m' ? '1 MiB' : '64 KiB'
  const options = { bs, iodepth: 8 }
  return [
    {
      id: `seqwrite-${bs}`,
      title: `${name} sequential write, depth 8`,
      figure: 'MiB/s',
      options: { ...options, rw: 'write' },
      quick: bs === '1m',
      direct: bs === '1m',
    },
    {
      id: `seqread-${bs}`,
      title: `${name} sequential read, depth 8`,
      figure: 'MiB/s',
      options: { ...options, rw: 'read' },
      direct: bs === '1m',
      reads: true,
    },
  ]
})

export const workloads: readonly Workload[] = [
  ...writes,
  ...reads,
  {
    id: 'mix-4k-d32',
    title: '4 KiB random, 70 % reads, depth 32',
    figure: 'iops',
    options: { ...size4k, rw: 'randrw', rwmixread: 70, iodepth: 32 },
  },
  ...syncs,
  ...sequences,
  {
    id: 'zipf-4k-d32',
    title: '4 KiB overwrite, zipf 1.1, depth 32',
    figure: 'iops',
    options: { ...size4k, rw: 'randwrite', iodepth: 32, random_distribution: 'zipf:1.1' },
  },
  {
    id: 'first-write-d16',
    title: '4 KiB random write, depth 16, first after a snapshot',
    figure: 'iops',
    options: { ...size4k, rw: 'randwrite', iodepth: 16 },
    quick: true,
    afterSnapshot: true,
  },
]

/** What is compared after a snapshot is copied in such blocks by both: qcow2's clusters, a pool's blocks. */
export const copiedBlockBytes = 64 * 1024
