/* SPDX-License-Identifier: MIT */
/*
 * The loop that runs a table of syscalls on a thread of its own in the job: data here, code only where it is copied to.
 * It is position-independent, makes no calls and has no stack, and touches nothing but the control block and the table.
 *
 *   born    the first part, on a thread just made by clone; its sixth argument is the address of the control block
 *   run     the next part: from AT to END, or to the first operation that does not meet its expectation
 *   undo    the undo calls of all operations before AT that did not fail, the last one first; that an fd is closed already
 *           is no failure
 *   leave   the thread ends
 *   alone   where the thread goes on if the tracer dies, or does not come back in time: forward to the end of the table if
 *           it has come to POINT and nothing failed, else back to its beginning; then it ends
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
