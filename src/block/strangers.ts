interface Facts {
  readonly mode: number
  readonly uid: number
}

const stickyBit = 0o1000

/**
 * Why somebody besides this user and root may change a file, or the names in a folder; undefined: nobody may.
 *
 * What the agent keeps is believed when it starts: it names the disks that it writes to, as root.
 */
export function whyStrangersMayChange({ mode, uid }: Facts): string | undefined {
  if (uid !== 0 && uid !== process.geteuid?.()) return 'it belongs to another user'
  return (mode & 0o022) === 0 ? undefined : 'others may write to it'
}

/** The same of a name that is in the folder already and is ours: with the sticky bit others may add names beside it. */
export function whyStrangersMayReplace({ mode, uid }: Facts): string | undefined {
  return whyStrangersMayChange({ mode: mode & stickyBit ? 0 : mode, uid })
}
