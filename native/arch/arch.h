// SPDX-License-Identifier: MIT
/**
 * The one place that asks which architecture this is. Each header below gives, in namespace fdmove::arch:
 *
 *   Registers             the general registers of an event stop; read_registers() refuses what is not 64-bit code
 *   kSyscallInstruction   the bytes of the syscall instruction; kInstructionStep: where it can begin
 *   kSleepForEver         a whole program, for kElfMachine
 *   accessors             program_counter, stack_pointer, interrupted_syscall, syscall_argument, ended_with_eintr
 *   reissue_syscall()     takes back an EINTR that only our stop has caused
 *   Injection             makes syscalls in one stopped thread: open, call, close
 *   send_to, cut_short    steer a thread that runs the code of arch/batch.S
 *   kHasGuests, home_of   whether that may be a thread of the job itself, and how one goes back to its own code
 */
#pragma once

#if defined(__x86_64__)
#include "arch/x86_64.h"
#elif defined(__aarch64__)
#include "arch/aarch64.h"
#else
#error "fdmove injects syscalls on x86_64 and aarch64 only"
#endif
