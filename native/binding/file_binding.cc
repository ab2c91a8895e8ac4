// SPDX-License-Identifier: Apache-2.0
//
// The few file calls Node does not have: punching holes, zeroing ranges, locking a file. A separate, stateless addon,
// so that worker threads can load it.
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <node_api.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

namespace {

napi_value throw_errno(napi_env env, const char* call, int error) {
  std::string text = std::string(call) + ": " + strerror(error);
  std::string code = strerrorname_np(error) ? strerrorname_np(error) : "EIO";
  napi_throw_error(env, code.c_str(), text.c_str());
  return nullptr;
}

bool number_arguments(napi_env env, napi_callback_info info, int64_t* values, size_t count) {
  napi_value arguments[3];
  size_t given = 3;
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

napi_value initialize(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"punchHole", nullptr, punch_hole, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"nextData", nullptr, next_data, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"lock", nullptr, lock_file, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof properties / sizeof properties[0], properties);
  return exports;
}

}  // namespace

NAPI_MODULE(tidemark_file, initialize)
