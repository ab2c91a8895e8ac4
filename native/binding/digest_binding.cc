// SPDX-License-Identifier: Apache-2.0
//
// Digests of blocks. A separate, stateless addon, so that workers can load it.
#include <node_api.h>

#include <cstdint>
#include <cstring>

#include "../sys/block_digest.h"

namespace {

using namespace tidemark;

struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

bool bytesOf(napi_env env, napi_value value, Bytes& bytes) {
  napi_typedarray_type type;
  size_t count = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &count, &data, nullptr, nullptr) != napi_ok) return false;
  if (type != napi_uint8_array && type != napi_uint32_array) return false;
  bytes = {static_cast<uint8_t*>(data), type == napi_uint32_array ? count * 4 : count};
  return true;
}

// blockDigests(key, blocks, digests): 32 bytes for each block of 4 KiB.
napi_value blockDigests(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t given = 3;
  Bytes key, blocks, digests;
  if (napi_get_cb_info(env, info, &given, arguments, nullptr, nullptr) != napi_ok || given < 3 ||
      !bytesOf(env, arguments[0], key) || !bytesOf(env, arguments[1], blocks) || !bytesOf(env, arguments[2], digests) ||
      key.length != kDigestKeyWords * 8 || blocks.length % kDigestBlockBytes != 0 ||
      digests.length < blocks.length / kDigestBlockBytes * kDigestWords * 8) {
    napi_throw_type_error(env, "EINVAL", "a key, whole blocks and room for their digests were expected");
    return nullptr;
  }
  uint64_t words[kDigestKeyWords];
  std::memcpy(words, key.data, sizeof words);
  for (size_t at = 0, block = 0; at < blocks.length; at += kDigestBlockBytes, block++) {
    uint64_t digest[kDigestWords];
    blockDigest(words, blocks.data + at, digest);
    std::memcpy(digests.data + block * sizeof digest, digest, sizeof digest);
  }
  return nullptr;
}

napi_value initialize(napi_env env, napi_value exports) {
  const napi_property_descriptor property = {"blockDigests", nullptr, blockDigests,    nullptr,
                                             nullptr,        nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &property);
  return exports;
}

}  // namespace

NAPI_MODULE(tidemark_digest, initialize)
