/**
 * What one site tells the other, once, by hand: where to send and how to prove it. Printed at the destination as one
 * string, pasted at the source. It is a secret.
 */
export interface Pairing {
  /** 16 bytes: names the pair of sites, and the folder at the destination. */
  readonly id: Buffer
  /** 32 bytes: every key of the pair is derived from it. */
  readonly secret: Buffer
  readonly endpoint: Endpoint
}

export type Endpoint =
  | { readonly kind: 'folder'; readonly directory: string }
  | { readonly kind: 'https'; readonly host: string; readonly port: number; readonly fingerprint: string }
  | {
      readonly kind: 'ftp'
      readonly host: string
      readonly port: number
      readonly user: string
      readonly password: string
      readonly directory: string
      readonly tls: 'none' | 'explicit' | 'implicit'
    }
