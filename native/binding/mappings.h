// SPDX-License-Identifier: MIT
/** What JavaScript says of mappings, for native/remap.h. */
#pragma once

#include <string>
#include <vector>

#include <napi.h>

#include "mapping_step.h"

namespace fdmove::binding {

/** MappingMove[] of src/native.ts. */
std::vector<MappingMove> to_mapping_moves(const Napi::Value& value);
/** BigUint64Array. */
std::vector<RemoteAddress> to_addresses(const Napi::Value& value);
/** string[]. */
std::vector<std::string> to_texts(const Napi::Value& value);

}  // namespace fdmove::binding
