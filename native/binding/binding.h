// SPDX-License-Identifier: MIT
/** What the files of this folder share: one register_*() each, and how a Failure becomes a JavaScript error. */
#pragma once

#include <napi.h>

#include "result.h"

namespace fdmove::binding {

void register_copy(Napi::Env env, Napi::Object exports);
void register_kernel(Napi::Env env, Napi::Object exports);
void register_probes(Napi::Env env, Napi::Object exports);
void register_proc(Napi::Env env, Napi::Object exports);
void register_session(Napi::Env env, Napi::Object exports);
void register_sockets(Napi::Env env, Napi::Object exports);
void register_paths(Napi::Env env, Napi::Object exports);

/**
 * Throws `failure` as an Error: `.message`, `.code` (ERR_FDMOVE_* or the errno name, e.g. ENOENT), `.errno`
 * (negative, as in Node), `.syscall`, `.side` ('tracer' | 'tracee'), `.tid`. Returns undefined for `return throw_failure(...)`.
 */
Napi::Value throw_failure(Napi::Env env, const Failure& failure);

/** The same, as a value for promises. */
Napi::Error to_error(Napi::Env env, const Failure& failure);

/** A BigInt argument that fits 64 bits, or a Number that is a safe integer. */
uint64_t to_u64(const Napi::Value& value);
inline int64_t to_i64(const Napi::Value& value) { return static_cast<int64_t>(to_u64(value)); }

/** The bytes of a Buffer, or of a string in UTF-8: file names and paths. */
std::string to_bytes(const Napi::Value& value);

}  // namespace fdmove::binding
