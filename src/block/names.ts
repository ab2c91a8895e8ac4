import { StorageError } from './storage-error.js'

const pattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/

/** True for what may name a volume, stream or destination: it becomes a file name, a link and an FTP argument. */
export function isName(value: string): boolean {
  return pattern.test(value) && !value.includes('..')
}

/** @throws StorageError BAD_NAME */
export function checkName(kind: string, value: string): string {
  if (isName(value)) return value
  throw new StorageError('BAD_NAME', {
    op: kind,
    object: JSON.stringify(value.slice(0, 80)),
    hint: 'Use 1 to 63 letters, digits, dots, dashes or underscores, beginning with a letter or digit.',
  })
}
