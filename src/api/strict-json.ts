/** Containers inside containers; no request of ours needs more than three. */
export const JSON_DEPTH_LIMIT = 16

const forbiddenKeys = new Set(['__proto__', 'constructor', 'prototype'])

/** Why a JSON text is refused. The text itself is never quoted: it may hold a secret or control characters. */
export class JsonRefusal extends Error {}

/**
 * Parse a JSON text that somebody else wrote.
 *
 * Refused beyond what JSON.parse refuses: nesting over JSON_DEPTH_LIMIT, a key given twice, keys that reach an object's
 * prototype, and numbers that a JavaScript number cannot hold exactly (over 2^53).
 *
 * @throws JsonRefusal
 */
export function parseStrictJson(text: string): unknown {
  checkTokens(text)
  return parseText(text)
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new JsonRefusal('the body is not valid JSON')
  }
}

/** One pass, no recursion, before anything is built. Text that is no JSON may pass here; it does not parse. */
function checkTokens(text: string): void {
  // The keys seen in each open object; null for an open array.
  const open: (Set<string> | null)[] = []
  let keyNext = false
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at]!
    if (character === '{' || character === '[') {
      open.push(character === '{' ? new Set() : null)
      keyNext = character === '{'
      if (open.length > JSON_DEPTH_LIMIT)
        throw new JsonRefusal(`the body is nested over ${JSON_DEPTH_LIMIT} levels deep`)
    } else if (character === '}' || character === ']') {
      open.pop()
      keyNext = false
    } else if (character === ',') {
      keyNext = open.at(-1) instanceof Set
    } else if (character === '"') {
      const end = stringEnd(text, at)
      if (keyNext) checkKey(parseText(text.slice(at, end + 1)), open.at(-1))
      keyNext = false
      at = end
    } else if (character === '-' || (character >= '0' && character <= '9')) {
      const end = numberEnd(text, at)
      if (!(Math.abs(Number(text.slice(at, end))) <= Number.MAX_SAFE_INTEGER)) {
        throw new JsonRefusal('the body has a number beyond 2^53')
      }
      at = end - 1
    }
  }
}

function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1
    else if (text[at] === '"') return at
  }
  return text.length
}

function numberEnd(text: string, start: number): number {
  let at = start + 1
  while (at < text.length && '0123456789.eE+-'.includes(text[at]!)) at += 1
  return at
}

function checkKey(key: unknown, seen: Set<string> | null | undefined): void {
  if (typeof key !== 'string' || !seen) throw new JsonRefusal('the body is not valid JSON')
  if (forbiddenKeys.has(key)) throw new JsonRefusal(`the body has the forbidden key ${key}`)
  if (seen.has(key)) throw new JsonRefusal('the body has one key twice')
  seen.add(key)
}
