/** What operators read: one event, named by code, about one object. */
export interface AgentEvent {
  readonly number: number
  readonly time: string
  readonly severity: 'info' | 'warning' | 'error'
  readonly code: string
  readonly object: string
  readonly text: string
}

export type ReportEvent = (event: Omit<AgentEvent, 'number' | 'time'>) => void
