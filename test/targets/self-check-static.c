// SPDX-License-Identifier: MIT
// cc: -static
#include "self-check.h"
