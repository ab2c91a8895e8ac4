// SPDX-License-Identifier: Apache-2.0
//
// The few file calls Node does not have: punching holes, zeroing ranges, dropping what is cached, a sync that may be believed,
// locking a file, copying from file to file, writing in many places at once, where memory lies. A separate, stateless addon, so that worker threads can load it.
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <node_api.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../sys/data_sync.h"
#include "../sys/write_many.h"

namespace {

std::string errno_name(int error) { return strerrorname_np(error) ? strerrorname_np(error) : "EIO"; }

std::string errno_text(const char* call, int error) { return std::string(call) + ": " + strerror(error); }

napi_value throw_errno(napi_env env, const char* call, int error) {
  napi_throw_error(env, errno_name(error).c_str(), errno_text(call, error).c_str());
  return nullptr;
}

bool number_arguments(napi_env env, napi_callback_info info, int64_t* values, size_t count) {
  napi_value arguments[5];
  size_t given = 5;
  if (napi_get_cb_info(env, info, &given, arguments, nullptr, nullptr) != napi_ok || given < count) {
    napi_throw_type_error(env, "EINVAL", "wrong number of arguments");
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    if (napi_get_value_int64(env, arguments[i], &values[i]) != napi_ok || values[i] < 0) {
      napi_throw_type_error(env, "EINVAL", "a non-negative integer was expected");
      return false;
    }
  }
  return true;
}

int write_zeros(int fd, int64_t offset, int64_t length) {
  alignas(4096) static const uint8_t zeros[1 << 20] = {};
  while (length > 0) {
    size_t piece = length < static_cast<int64_t>(sizeof zeros) ? static_cast<size_t>(length) : sizeof zeros;
    ssize_t written = pwrite(fd, zeros, piece, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    offset += written;
    length -= written;
  }
  return 0;
}

int deallocate(int fd, int64_t offset, int64_t length) {
  if (length == 0) return 0;
  for (int mode : {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE}) {
    int result;
    do {
      result = fallocate(fd, mode, offset, length);
    } while (result < 0 && errno == EINTR);
    if (result == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) return errno;
  }
  return write_zeros(fd, offset, length);
}

// punchHole(fd, offset, lengthBytes): reads as zeros afterwards; space is freed where the file system can.
napi_value punch_hole(napi_env env, napi_callback_info info) {
  int64_t values[3];
  if (!number_arguments(env, info, values, 3)) return nullptr;
  int error = deallocate(static_cast<int>(values[0]), values[1], values[2]);
  return error == 0 ? nullptr : throw_errno(env, "fallocate", error);
}

// nextData(fd, offset): where data begin at or after offset; -1 when only holes follow.
napi_value next_data(napi_env env, napi_callback_info info) {
  int64_t values[2];
  if (!number_arguments(env, info, values, 2)) return nullptr;
  off_t found = lseek(static_cast<int>(values[0]), values[1], SEEK_DATA);
  if (found < 0 && errno == ENXIO) found = -1;
  // Where holes cannot be told everything counts as data.
  else if (found < 0) found = values[1];
  napi_value result;
  napi_create_int64(env, found, &result);
  return result;
}

// dropCache(fd): pages of the file that are clean leave the page cache, so that the disk is read again.
napi_value drop_cache(napi_env env, napi_callback_info info) {
  int64_t values[1];
  if (!number_arguments(env, info, values, 1)) return nullptr;
  int error = posix_fadvise(static_cast<int>(values[0]), 0, 0, POSIX_FADV_DONTNEED);
  return error == 0 ? nullptr : throw_errno(env, "posix_fadvise", error);
}

// syncData(fd): what the file holds is durable; see data_sync.h.
napi_value sync_data(napi_env env, napi_callback_info info) {
  int64_t values[1];
  if (!number_arguments(env, info, values, 1)) return nullptr;
  int error = tidemark::syncData(static_cast<int>(values[0]));
  return error == 0 ? nullptr : throw_errno(env, "fdatasync", error);
}

// lock(fd): an exclusive advisory lock that ends with the descriptor; false when another process holds it.
napi_value lock_file(napi_env env, napi_callback_info info) {
  int64_t values[1];
  if (!number_arguments(env, info, values, 1)) return nullptr;
  int result;
  do {
    result = flock(static_cast<int>(values[0]), LOCK_EX | LOCK_NB);
  } while (result < 0 && errno == EINTR);
  if (result < 0 && errno != EWOULDBLOCK) return throw_errno(env, "flock", errno);
  napi_value held;
  napi_get_boolean(env, result == 0, &held);
  return held;
}

struct Copy {
  int from;
  int64_t from_offset;
  int to;
  int64_t to_offset;
  int64_t length;
  int64_t copied = 0;
  int error = 0;
  const char* call = "";
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
};

constexpr int64_t copy_buffer_bytes = 256 * 1024;

// By way of memory: where the kernel does not copy between these files, and to find out which of the two is at fault.
void copy_by_memory(Copy& copy) {
  std::unique_ptr<uint8_t[]> bytes(new uint8_t[copy_buffer_bytes]);
  while (copy.copied < copy.length) {
    const int64_t wanted = std::min(copy.length - copy.copied, copy_buffer_bytes);
    const ssize_t got = pread(copy.from, bytes.get(), static_cast<size_t>(wanted), copy.from_offset + copy.copied);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) return;
    if (got < 0) {
      copy.error = errno;
      copy.call = "read";
      return;
    }
    for (ssize_t done = 0; done < got;) {
      const ssize_t put =
          pwrite(copy.to, bytes.get() + done, static_cast<size_t>(got - done), copy.to_offset + copy.copied);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        copy.error = put < 0 ? errno : EIO;
        copy.call = "write";
        return;
      }
      done += put;
      copy.copied += put;
    }
  }
}

void copy_execute(napi_env, void* data) {
  Copy& copy = *static_cast<Copy*>(data);
  while (copy.copied < copy.length) {
    off64_t from = copy.from_offset + copy.copied;
    off64_t to = copy.to_offset + copy.copied;
    const auto wanted = static_cast<size_t>(copy.length - copy.copied);
    const ssize_t done = copy_file_range(copy.from, &from, copy.to, &to, wanted, 0);
    if (done < 0 && errno == EINTR) continue;
    // Some file systems answer 0 where they do not copy.
    if (done <= 0) return copy_by_memory(copy);
    copy.copied += done;
  }
}

void copy_complete(napi_env env, napi_status status, void* data) {
  std::unique_ptr<Copy> copy(static_cast<Copy*>(data));
  napi_delete_async_work(env, copy->work);
  if (status == napi_ok && copy->error == 0) {
    napi_value copied;
    napi_create_int64(env, copy->copied, &copied);
    napi_resolve_deferred(env, copy->deferred, copied);
    return;
  }
  const int error = copy->error != 0 ? copy->error : ECANCELED;
  napi_value code, text, object, call;
  napi_create_string_utf8(env, errno_name(error).c_str(), NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, errno_text(copy->call, error).c_str(), NAPI_AUTO_LENGTH, &text);
  napi_create_string_utf8(env, copy->call, NAPI_AUTO_LENGTH, &call);
  napi_create_error(env, code, text, &object);
  napi_set_named_property(env, object, "syscall", call);
  napi_reject_deferred(env, copy->deferred, object);
}

// copyRange(from, fromOffset, to, toOffset, lengthBytes): resolves to what was copied, less when the source ends. The
// error's `syscall` says whether reading or writing failed. Both descriptors stay open until then.
napi_value copy_range(napi_env env, napi_callback_info info) {
  int64_t values[5];
  if (!number_arguments(env, info, values, 5)) return nullptr;
  std::unique_ptr<Copy> copy(new Copy{static_cast<int>(values[0]), values[1], static_cast<int>(values[2]), values[3],
                                      values[4]});
  napi_value name, promise;
  if (napi_create_string_utf8(env, "copyRange", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, nullptr, name, copy_execute, copy_complete, copy.get(), &copy->work) != napi_ok ||
      napi_create_promise(env, &copy->deferred, &promise) != napi_ok ||
      napi_queue_async_work(env, copy->work) != napi_ok) {
    napi_throw_error(env, "ENOMEM", "no copy could be begun");
    return nullptr;
  }
  copy.release();
  return promise;
}

// misalignment(buffer): so far behind a multiple of 4096 its memory begins.
napi_value misalignment(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t given = 1;
  void* data = nullptr;
  size_t length = 0;
  if (napi_get_cb_info(env, info, &given, &argument, nullptr, nullptr) != napi_ok || given < 1 ||
      napi_get_buffer_info(env, argument, &data, &length) != napi_ok) {
    napi_throw_type_error(env, "EINVAL", "a buffer was expected");
    return nullptr;
  }
  napi_value result;
  napi_create_int64(env, static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) % 4096), &result);
  return result;
}

// writeMany(fd, payloads, offsets): each of the buffers at its offset, in any order; see write_many.h.
napi_value write_many(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t given = 3;
  int64_t fd;
  uint32_t count = 0;
  uint32_t offset_count = 0;
  const auto refuse = [env] {
    napi_throw_type_error(env, "EINVAL", "a descriptor, buffers and as many offsets were expected");
    return nullptr;
  };
  if (napi_get_cb_info(env, info, &given, arguments, nullptr, nullptr) != napi_ok || given < 3 ||
      napi_get_value_int64(env, arguments[0], &fd) != napi_ok ||
      napi_get_array_length(env, arguments[1], &count) != napi_ok ||
      napi_get_array_length(env, arguments[2], &offset_count) != napi_ok || count != offset_count) {
    return refuse();
  }
  std::vector<tidemark::FileWrite> writes(count);
  for (uint32_t at = 0; at < count; at++) {
    napi_value payload, offset;
    void* bytes = nullptr;
    if (napi_get_element(env, arguments[1], at, &payload) != napi_ok ||
        napi_get_element(env, arguments[2], at, &offset) != napi_ok ||
        napi_get_buffer_info(env, payload, &bytes, &writes[at].length) != napi_ok ||
        napi_get_value_int64(env, offset, &writes[at].offset) != napi_ok || writes[at].offset < 0) {
      return refuse();
    }
    writes[at].bytes = static_cast<const uint8_t*>(bytes);
  }
  const int error = tidemark::writeMany(static_cast<int>(fd), writes.data(), writes.size());
  return error == 0 ? nullptr : throw_errno(env, "write", error);
}

napi_value initialize(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"punchHole", nullptr, punch_hole, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"nextData", nullptr, next_data, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"copyRange", nullptr, copy_range, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"misalignment", nullptr, misalignment, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"dropCache", nullptr, drop_cache, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"syncData", nullptr, sync_data, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"writeMany", nullptr, write_many, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"lock", nullptr, lock_file, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof properties / sizeof properties[0], properties);
  return exports;
}

}  // namespace

NAPI_MODULE(tidemark_file, initialize)
