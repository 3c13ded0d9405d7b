/* SPDX-License-Identifier: MIT */
/*
 * The loop that runs a table of syscalls in the job, on a thread of ours there or on one of its own, a guest: data here, code only
 * where it is copied to. It is position-independent, makes no calls and has no stack, and touches nothing but the control block and the table.
 *
 *   born    the first part, on a thread just made by clone; its sixth argument is the address of the control block
 *   run     the next part: from AT to END, or to the first operation that does not meet its expectation
 *   undo    the undo calls of all operations before AT that did not fail, the last one first; that an fd is closed already
 *           is no failure
 *   look    asks for the fds that are to be looked at, and goes on with run; LOOK_AFTER: run goes there when it is through
 *   leave   the thread ends; a guest goes home, to the registers in the control block, when the gate is open
 *   shelter where any other thread of the job stands while the new fds are put in place: should the tracer die, it blocks its
 *           signals, waits until the gate opens, when all is taken back or complete, and goes home
 *   gate    the same where they are blocked already, and its own mask is in its home
 *   alone   where the thread goes on if the tracer dies, or does not come back in time: forward to the end of the table if
 *           it has come to POINT and nothing failed, else back to its beginning; then it leaves
 *
 * run and undo say WAITING when they are through, and wait.
 */
#include "batch_layout.h"
#if defined(__x86_64__)
#include "batch_x86_64.S"
#elif defined(__aarch64__)
#include "batch_aarch64.S"
#endif
    .section .note.GNU-stack,"",%progbits
