// SPDX-License-Identifier: MIT
// The addon's entry: every file of this folder registers its functions here. Nothing outside this folder knows that
// JavaScript exists.
#include "binding/binding.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  fdmove::binding::register_copy(env, exports);
  fdmove::binding::register_kernel(env, exports);
  fdmove::binding::register_probes(env, exports);
  fdmove::binding::register_proc(env, exports);
  fdmove::binding::register_session(env, exports);
  fdmove::binding::register_paths(env, exports);
  fdmove::binding::register_sockets(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(fdmove, init)
