import { StorageError } from '../block/storage-error.js'
import type { Certificate } from '../transport/certificate.js'

/** A pairing this agent gave out, as its file has it. */
export interface StoredPairing {
  readonly pairing: string
  /** The folder its files arrive in. */
  readonly inbox: string
}

/** @param file named when it is damaged. @throws StorageError SECRET_DAMAGED, which quotes nothing of it */
export function parseStoredPairing(text: string, file: string): StoredPairing {
  const { pairing, inbox } = fieldsOf(text)
  if (typeof pairing === 'string' && typeof inbox === 'string') return { pairing, inbox }
  throw damaged(file, 'Restore it from a backup; or remove it, and make the pairing anew.')
}

/** @throws StorageError SECRET_DAMAGED, as parseStoredPairing() */
export function parseStoredCertificate(text: string, file: string): Certificate {
  const { key, cert } = fieldsOf(text)
  if (typeof key === 'string' && typeof cert === 'string') return { key, cert }
  throw damaged(file, 'Restore it from a backup; or remove it, and make all https pairings anew.')
}

function fieldsOf(text: string): Record<string, unknown> {
  try {
    const value = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

function damaged(file: string, hint: string): StorageError {
  return new StorageError('SECRET_DAMAGED', { op: 'agent', object: file, hint })
}
