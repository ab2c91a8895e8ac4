import type { RetryClass } from '../block/storage-error.js'

interface Advice {
  readonly hint: string
  readonly retry?: RetryClass
}

const advice: Record<string, Advice> = {
  NOT_FOUND: { hint: 'Nothing is there: check the path.' },
  NOT_PERMITTED: { hint: 'The agent must run as root and the path must be open to it.' },
  READ_ONLY: { hint: 'The device or its file system is read-only: make it writable, or attach read-only.' },
  NOT_A_FILE_OR_BLOCK_DEVICE: { hint: 'Give a block device or a flat file.' },
  DEVICE_BUSY: { hint: 'Unmount or close what holds it, then try again.', retry: 'later' },
  IO_FAILED: { hint: "Look at the kernel's log (dmesg) for the device that failed." },
  BACKING_TOO_SMALL: { hint: 'Give a smaller size, or a larger file or device.' },
  BAD_SIZE: { hint: 'The size must be a whole number of logical blocks of the device (512 or 4096 bytes).' },
  NO_MEMORY: { hint: 'Free memory on this machine, then try again.', retry: 'later' },
  VOLUME_ATTACHED: { hint: 'Detach the volume first.' },
  VOLUME_CLOSED: { hint: 'The volume was closed meanwhile: open it again.' },
  MOUNT_FAILED: { hint: 'The mount point must be a regular file that the agent (as root) can mount on.' },
  FUSE_UNAVAILABLE: { hint: 'Load the fuse module (modprobe fuse); Linux 5.17 or newer is needed.' },
  LOOP_FAILED: { hint: 'Load the loop module (modprobe loop) and see that /dev/loop-control is there.' },
  KEEPER_OTHER_VERSION: {
    hint: 'Hosts wait at its devices. Start the version of the agent that was there before, have them unmount, and detach; or let go of them: tidemark keeper abort NAME.',
  },
  KEEPER_SILENT: {
    hint: 'Hosts wait at its devices, and go on when it does: see whether the process tidemark-keeper is stopped. Or let go of them: tidemark keeper abort NAME, then kill that process.',
    retry: 'later',
  },
  KEEPER_FAILED: { hint: 'build/Release/tidemark_keeper is missing or cannot be run: node tools/build-addon.mjs' },
  FOREIGN_SEGMENT: { hint: 'The folder holds segments of another journal: give the journal its own folder.' },
  JOURNAL_DAMAGED: { hint: 'The segment to go on in is damaged: recovery must decide where the journal ends.' },
  JOURNAL_NO_SPACE: { hint: "Free space on the journal's file system." },
  JOURNAL_SEGMENT_FAILED: { hint: "Look at the kernel's log (dmesg) for the device that holds the journal." },
  JOURNAL_SYNC_FAILED: { hint: "Look at the kernel's log (dmesg) for the device that holds the journal." },
  JOURNAL_ABANDONED: { hint: 'The journal was given up; writes go to the backing alone.' },
  JOURNAL_CLOSED: { hint: 'The journal was closed meanwhile.' },
  JOURNAL_IN_USE: { hint: 'Take the journal from its volumes first.' },
  REGIONS_UNREADABLE: { hint: 'Check the disk of the buffer directory, then: tidemark stream resume' },
  REGIONS_DAMAGED: { hint: 'The record of regions cannot be believed: initialize the stream again.' },
  REGIONS_UNWRITABLE: { hint: "Look at the kernel's log (dmesg) for the device that holds the buffer directory." },
  REGIONS_CLOSED: { hint: 'The record of regions was closed meanwhile.' },
  LOG_FULL: { hint: "The pool's mapping log has no room until the next checkpoint.", retry: 'later' },
  POOL_FAILED: { hint: "Look at the kernel's log (dmesg) for the pool's devices, then restart the agent." },
  POOL_CLOSED: { hint: 'The pool was closed meanwhile: open it again.' },
  POOL_IN_USE: { hint: 'Close the volumes of the pool first.', retry: 'later' },
  TOO_MANY_DEVICES: { hint: 'A pool has 64 devices at the most.' },
  BLOCK_SIZE_DIFFERS: { hint: 'Give a device whose logical blocks are no larger than those of the others.' },
  TOO_MANY_CALLS: { hint: 'Wait until calls under way have ended.', retry: 'later' },
  TOO_MANY_GRANTS: { hint: 'Wait until grants under way have been carried out.', retry: 'later' },
}

const fallback: Advice = { hint: 'This is not expected: report it with the message above.' }

/** What an operator can do about a native error code, and when the caller may try again. */
export function adviceFor(code: string): Advice {
  return advice[code] ?? fallback
}
