import { createHash, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { Pairing } from './pairing.js'

/** Each use of the secret has its own label, so that no key tells anything about another. */
function deriveKey(pairing: Pick<Pairing, 'id' | 'secret'>, label: string): Buffer {
  return Buffer.from(hkdfSync('sha256', pairing.secret, pairing.id, `tidemark ${label}`, 32))
}

/** The bearer token of the https transport: 64 hex digits. The receiver compares it, the sender presents it. */
export function bearerToken(pairing: Pick<Pairing, 'id' | 'secret'>): string {
  return deriveKey(pairing, 'https bearer 1').toString('hex')
}

/** Equal or not, in a time that tells nothing of where they differ. */
export function isSameToken(one: string, other: string): boolean {
  const digest = (token: string) => createHash('sha256').update(token).digest()
  return timingSafeEqual(digest(one), digest(other))
}
