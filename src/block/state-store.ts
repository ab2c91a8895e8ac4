/**
 * Small durable facts, by key: what an agent must remember across a crash.
 *
 * Values are JSON. A put has reached the disk when its promise resolves; puts of one call are one transaction.
 */
export interface StateStore {
  get<T>(key: string): T | undefined
  put(entries: Record<string, unknown>): Promise<void>
  remove(keys: readonly string[]): Promise<void>
  /** Entries whose key begins with the prefix, in key order. */
  list<T>(prefix: string): { key: string; value: T }[]
}
