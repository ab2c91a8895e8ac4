/** Bits of a unit's slots: 504 at the most. */
export type SlotBits = Uint32Array

export function noSlots(slots: number): SlotBits {
  return new Uint32Array(Math.ceil(slots / 32))
}

export function allSlots(slots: number): SlotBits {
  const bits = noSlots(slots).fill(0xffffffff)
  if (slots % 32 !== 0) bits[bits.length - 1] = 2 ** (slots % 32) - 1
  return bits
}

export function hasSlot(bits: SlotBits, slot: number): boolean {
  return ((bits[slot >>> 5]! >>> (slot & 31)) & 1) === 1
}

export function setSlot(bits: SlotBits, slot: number): void {
  bits[slot >>> 5]! |= 1 << (slot & 31)
}

export function clearSlot(bits: SlotBits, slot: number): void {
  bits[slot >>> 5]! &= ~(1 << (slot & 31))
}

export function countSlots(bits: SlotBits): number {
  let count = 0
  for (let word of bits) for (; word !== 0; count += 1) word &= word - 1
  return count
}

/** The first slot set at or after this one, else the first of all, else -1. */
export function nextSlot(bits: SlotBits, from: number): number {
  const found = firstFrom(bits, from)
  return found >= 0 || from === 0 ? found : firstFrom(bits, 0)
}

function firstFrom(bits: SlotBits, from: number): number {
  for (let index = from >>> 5; index < bits.length; index += 1) {
    const mask = index === from >>> 5 ? -1 << (from & 31) : -1
    const word = bits[index]! & mask
    if (word !== 0) return index * 32 + (31 - Math.clz32(word & -word))
  }
  return -1
}
