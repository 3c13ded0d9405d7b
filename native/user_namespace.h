// SPDX-License-Identifier: MIT
/** A user namespace made for somebody else. */
#pragma once

#include "result.h"
#include "unique_fd.h"

namespace fdmove {

/**
 * Our fd on a new user namespace, empty, of which `tid` has all capabilities as soon as it enters it by setns(2): a child of its own
 * one, of its own user (user_namespaces(7)). A process in a chroot may make none, and may enter one all the same: current_chrooted()
 * in kernel/user_namespace.c is asked by the former only. Errors: EPERM where we may not enter the namespace that `tid` lives in, or
 * become its user; ENOSPC where a limit of user namespaces is reached.
 */
Result<UniqueFd> make_user_namespace_for(pid_t tid);

}  // namespace fdmove
