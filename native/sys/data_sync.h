// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tidemark {

/**
 * fdatasync(), and then a look whether the file system has given up: what a file or folder held before is durable when
 * this says so.
 *
 * On ext4 fdatasync() alone does not say so. A commit of its journal may fail that somebody else's sync, or the kernel's
 * own clock, had asked for. Blocks that this file got in it are lost, and whoever waited is told; but who asks afterwards is
 * told yes, again and again, until something else is changed in that file system (Linux 6.18: jbd2_complete_transaction()
 * looks whether the transaction is still under way, and not how it ended). Whatever begins a change is refused from then on,
 * and taking away an attribute that is not there is a change that changes nothing: 1.4 us of processor time.
 *
 * @return 0 or an errno. A failure must never be retried.
 */
int syncData(int fd);

}  // namespace tidemark
