import { StorageError } from '../block/storage-error.js'
import { FrontEnd, type FrontEndOptions, type OpenedVolume } from './front-end.js'

export interface VolumeDefinition {
  readonly name: string
  readonly path: string
  readonly kind: 'file' | 'raw'
  readonly sizeBytes: number
  /** Wanted: an agent that starts attaches it again. */
  readonly attached: boolean
  /** How it is attached again. Absent: read-write. */
  readonly readOnly?: boolean
}

export interface VolumeOptions extends FrontEndOptions {
  readonly direct: boolean
}

/** A volume whose backing is a flat file or a raw device. */
export class Volume extends FrontEnd {
  readonly definition: VolumeDefinition
  readonly readOnly = false
  protected readonly servesFile = false
  readonly #direct: boolean

  constructor(definition: VolumeDefinition, options: VolumeOptions) {
    super(options)
    this.definition = definition
    this.#direct = options.direct
  }

  get name(): string {
    return this.definition.name
  }

  get kind(): 'file' | 'raw' {
    return this.definition.kind
  }

  get sizeBytes(): number {
    return this.definition.sizeBytes
  }

  get path(): string {
    return this.definition.path
  }

  protected async open(readOnly: boolean): Promise<OpenedVolume> {
    const { name, path: backing, kind, sizeBytes } = this.definition
    const native = this.options.intercept.openVolume({
      name,
      path: backing,
      sizeBytes: kind === 'raw' ? sizeBytes : 0,
      direct: this.#direct,
      readOnly,
      syncBacking: kind === 'raw',
      threads: this.options.threads,
      onLost: (message) => this.noteLost(message),
    })
    if (native.sizeBytes === sizeBytes) return { native, close: () => native.close() }
    await native.close()
    throw new StorageError('SIZE_CHANGED', {
      op: 'volume attach',
      object: name,
      hint: `${backing} has ${native.sizeBytes} bytes, the volume ${sizeBytes}. Give it its old size back, or remove the volume and adopt it anew.`,
    })
  }
}
