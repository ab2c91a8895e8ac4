// SPDX-License-Identifier: Apache-2.0
//
// AES-256-GCM into memory that is there already: Node's own cipher objects fill new memory with zeros, encrypt into it and
// copy it once more. The cipher is Node's own OpenSSL. A separate, stateless addon, so that workers can load it.
#include <node_api.h>
#include <openssl/evp.h>

#include <climits>
#include <cstdint>

namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;

struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

bool bytesOf(napi_env env, napi_value value, Bytes& bytes) {
  napi_typedarray_type type;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &bytes.length, &data, nullptr, nullptr) != napi_ok) return false;
  if (type != napi_uint8_array || bytes.length > INT_MAX) return false;
  bytes.data = static_cast<uint8_t*>(data);
  return true;
}

bool encrypt(EVP_CIPHER_CTX* cipher, const Bytes& key, const Bytes& nonce, const Bytes& aad, const Bytes& plain,
             const Bytes& sealed, const Bytes& tag) {
  // The library takes a missing input for the end of the text.
  uint8_t none = 0;
  int done = 0;
  int last = 0;
  if (EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), nullptr, key.data, nonce.data) != 1) return false;
  if (aad.length > 0 && EVP_EncryptUpdate(cipher, nullptr, &done, aad.data, static_cast<int>(aad.length)) != 1) {
    return false;
  }
  done = 0;
  if (plain.length > 0 &&
      EVP_EncryptUpdate(cipher, sealed.data, &done, plain.data, static_cast<int>(plain.length)) != 1) {
    return false;
  }
  if (EVP_EncryptFinal_ex(cipher, plain.length > 0 ? sealed.data + done : &none, &last) != 1) return false;
  return done >= 0 && static_cast<size_t>(done) == plain.length && last == 0 &&
         EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data) == 1;
}

// seal(key, nonce, aad, plain, sealed, tag): the encrypted text, as long as the plain one, and its tag of 16 bytes.
napi_value seal(napi_env env, napi_callback_info info) {
  napi_value arguments[6];
  size_t given = 6;
  Bytes key, nonce, aad, plain, sealed, tag;
  if (napi_get_cb_info(env, info, &given, arguments, nullptr, nullptr) != napi_ok || given < 6 ||
      !bytesOf(env, arguments[0], key) || !bytesOf(env, arguments[1], nonce) || !bytesOf(env, arguments[2], aad) ||
      !bytesOf(env, arguments[3], plain) || !bytesOf(env, arguments[4], sealed) || !bytesOf(env, arguments[5], tag) ||
      key.length != kKeyBytes || nonce.length != kNonceBytes || sealed.length != plain.length ||
      tag.length != kTagBytes) {
    napi_throw_type_error(env, "EINVAL", "key, nonce, associated data, text, room for it and for its tag were expected");
    return nullptr;
  }
  EVP_CIPHER_CTX* cipher = EVP_CIPHER_CTX_new();
  const bool sound = cipher != nullptr && encrypt(cipher, key, nonce, aad, plain, sealed, tag);
  EVP_CIPHER_CTX_free(cipher);
  if (!sound) napi_throw_error(env, "ESEAL", "the library did not encrypt");
  return nullptr;
}

napi_value initialize(napi_env env, napi_value exports) {
  const napi_property_descriptor property = {"seal",  nullptr, seal,           nullptr,
                                             nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &property);
  return exports;
}

}  // namespace

NAPI_MODULE(tidemark_seal, initialize)
