// SPDX-License-Identifier: MIT
/** What JavaScript says of mappings, for native/remap.h. */
#pragma once

#include <string>
#include <vector>

#include <napi.h>

#include "mapping_step.h"

namespace fdmove::binding {

/**
 * Six numbers a mapping (BigUint64Array): start, end, offset, protection (1 readable, 2 writable, 4 executable, 8 shared), and the
 * indexes of the fds on NEW and on OLD in `fds` (Int32Array).
 */
std::vector<MappingMove> to_mapping_moves(const Napi::Value& numbers, const Napi::Value& fds);
/** BigUint64Array. */
std::vector<RemoteAddress> to_addresses(const Napi::Value& value);
/** string[]. */
std::vector<std::string> to_texts(const Napi::Value& value);

}  // namespace fdmove::binding
