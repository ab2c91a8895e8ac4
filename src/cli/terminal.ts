import { safeJson, safeJsonText, visible, visibleLines } from './text.js'

/** A plain progress line at most so often, when stderr is no terminal. */
const PLAIN_INTERVAL_MS = 5000

export interface Streams {
  readonly stdin: NodeJS.ReadStream
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
}

/** Where a command prints: results on stdout, progress and remarks on stderr. */
export class Terminal {
  readonly json: boolean
  readonly #streams: Streams
  #drawnLength = 0
  #plainAtMs = 0

  constructor(streams: Streams, json: boolean) {
    this.#streams = streams
    this.json = json
  }

  /** The command's one result: the value as JSON, or the lines for people. */
  result(value: unknown, lines: readonly string[]): void {
    this.clearProgress()
    if (this.json) this.#streams.stdout.write(`${safeJson(value, 2)}\n`)
    else this.lines(lines)
  }

  lines(lines: readonly string[]): void {
    this.#streams.stdout.write(lines.map((line) => `${visible(line)}\n`).join(''))
  }

  /** Any number of whole lines; with --json they are JSON documents. */
  text(text: string): void {
    this.#streams.stdout.write(this.json ? safeJsonText(text) : visibleLines(text))
  }

  jsonLine(value: unknown): void {
    this.#streams.stdout.write(`${safeJson(value)}\n`)
  }

  /** For people only, beside the result; silent with --json. */
  remark(line: string): void {
    if (!this.json) this.#streams.stderr.write(`${visible(line)}\n`)
  }

  /** One line that is drawn over the last one on a terminal, and is printed every few seconds elsewhere. */
  progress(line: string): void {
    const { stderr } = this.#streams
    if (!stderr.isTTY) {
      const nowMs = performance.now()
      if (this.#plainAtMs !== 0 && nowMs - this.#plainAtMs < PLAIN_INTERVAL_MS) return
      this.#plainAtMs = nowMs
      stderr.write(`${visible(line)}\n`)
      return
    }
    const drawn = visible(line).slice(0, Math.max(20, (stderr.columns || 80) - 1))
    stderr.write(`\r${drawn.padEnd(this.#drawnLength)}`)
    this.#drawnLength = drawn.length
  }

  clearProgress(): void {
    if (this.#drawnLength === 0) return
    this.#streams.stderr.write(`\r${' '.repeat(this.#drawnLength)}\r`)
    this.#drawnLength = 0
  }

  /** All of stdin, for what must not stand on a command line. */
  async readInput(limitBytes: number): Promise<string> {
    let text = ''
    this.#streams.stdin.setEncoding('utf8')
    for await (const piece of this.#streams.stdin) {
      text += piece
      if (text.length > limitBytes) break
    }
    return text
  }
}
