import { KiB, MiB } from '../block/units.js'

/** 0xMMmmpp of the program that writes; told to readers, never decided on. */
export const writerVersion = 0x000100

/** Payload bytes of one part before compression, at most. */
export const PART_RAW_LIMIT = 16 * MiB
/** Records of one part, at most: what bounds the index of a part full of zero and trim records. */
export const PART_RECORD_LIMIT = 65_536
/** Payload bytes of one record, at most. Longer writes are several records. */
export const RECORD_PAYLOAD_LIMIT = 4 * MiB
/** A frame is closed when the next payload would carry it past this; a longer payload has a frame to itself. */
export const FRAME_TARGET_BYTES = MiB
/** Two neighbouring frames hold more than one target together, so a part within PART_RAW_LIMIT never needs more. */
export const FRAME_COUNT_LIMIT = (2 * PART_RAW_LIMIT) / FRAME_TARGET_BYTES + 1
export const MARKER_PAYLOAD_LIMIT = 64 * KiB
/** JSON text of a sealed message, at most. */
export const MESSAGE_LIMIT = 64 * KiB
/** No reader opens a longer file, whatever its header claims. */
export const PART_FILE_LIMIT = 20 * MiB
