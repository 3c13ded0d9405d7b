// SPDX-License-Identifier: MIT
/** Programs and what comes of them, between src/plan/program.ts and native/syscall_program.h. */
#pragma once

#include <napi.h>
#include <vector>

#include "syscall_program.h"

namespace fdmove::binding {

/** Reads a Program of src/plan/program.ts. ERR_FDMOVE_INTERNAL when it names a syscall that is not known. */
Result<Program> to_program(const Napi::Object& object);

/** A PartOutcome of src/native.ts. */
Napi::Object to_object(Napi::Env env, const Outcome& outcome);

/**
 * The index of the first of these numbers that `looks` do not bear out; -1 when they bear out all. Of each fd: device, inode,
 * mode, links, flags of the description among `flags`, close-on-exec, offset, whether anybody is signalled; -1 where anything
 * will do. ERR_FDMOVE_INTERNAL when there are not as many looks.
 */
Result<ptrdiff_t> first_difference_of(const std::vector<BatchLook>& looks, const int64_t* expected, size_t count, int64_t flags);

}  // namespace fdmove::binding
