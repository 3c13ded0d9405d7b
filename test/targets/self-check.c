// SPDX-License-Identifier: MIT
#include "self-check.h"
