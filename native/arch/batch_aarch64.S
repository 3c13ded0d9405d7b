/* SPDX-License-Identifier: MIT */
/*
 * x19: the control block. x20: the operation. x21: where its result goes. x22: the call to make. x23: where to go then.
 * A syscall leaves all registers but x0 alone.
 */
#include <asm-generic/errno-base.h>
#include <asm/unistd.h>

.macro entry name
    .globl fdmove_batch_\name
    .hidden fdmove_batch_\name
fdmove_batch_\name:
.endm

/* Turns what `kind` (a register, 0 to 2) says of the value in `register` into the value. */
.macro resolve register, kind
    cbz     \kind, 2f
    cmp     \kind, #FDMOVE_KIND_RESULT
    b.ne    1f
    ldr     \register, [\register]
    b       2f
1:  ldrsw   \register, [\register]
2:
.endm

.macro argument register, index
    ldr     \register, [x22, #FDMOVE_CALL_ARGS + 8 * \index]
    ldrb    w9, [x22, #FDMOVE_CALL_KINDS + \index]
    resolve \register, w9
.endm

    .section .rodata
    .balign 16
    entry   code

.macro ask number, of, result
    ldrsw   x0, [x20]
    mov     x1, #\of
    mov     x8, #\number
    svc     #0
    str     x0, [x21, #\result]
.endm

    entry   born
    mov     x19, x5

    entry   look
    ldr     x20, [x19, #FDMOVE_CONTROL_LOOK_AT]
    ldr     x21, [x19, #FDMOVE_CONTROL_LOOK_OUT]
.Llook:
    ldr     x9, [x19, #FDMOVE_CONTROL_LOOK_END]
    cmp     x20, x9
    b.hs    .Llooked
    ldrsw   x0, [x20]
    adr     x1, .Lempty
    mov     x2, #FDMOVE_LOOK_HOW
    mov     x3, #FDMOVE_LOOK_WANTED
    add     x4, x21, #FDMOVE_LOOK_STATX
    mov     x8, #__NR_statx
    svc     #0
    str     x0, [x21, #FDMOVE_LOOK_ASKED]
    ask     __NR_fcntl, FDMOVE_F_GETFL, FDMOVE_LOOK_FLAGS
    ask     __NR_fcntl, FDMOVE_F_GETFD, FDMOVE_LOOK_CLOEXEC
    ldr     x9, [x19, #FDMOVE_CONTROL_LOOK_SIGNALS]
    cbz     x9, .Loffset
    add     x2, x21, #FDMOVE_LOOK_OWNER
    ask     __NR_fcntl, FDMOVE_F_GETOWN_EX, FDMOVE_LOOK_OWNED
    ask     __NR_fcntl, FDMOVE_F_GETSIG, FDMOVE_LOOK_SIGNAL
    b       .Lasked
.Loffset:
    mov     x2, #FDMOVE_SEEK_CUR
    ask     __NR_lseek, 0, FDMOVE_LOOK_OFFSET
.Lasked:
    add     x20, x20, #4
    add     x21, x21, #FDMOVE_LOOK_SIZE
    b       .Llook
.Llooked:
    mov     x9, #1
    str     x9, [x19, #FDMOVE_CONTROL_LOOKED]
    b       fdmove_batch_run
.Lempty:
    .word   0

    entry   run
    ldr     x20, [x19, #FDMOVE_CONTROL_AT]
    ldr     x21, [x19, #FDMOVE_CONTROL_RESULT]
.Lnext:
    ldr     x9, [x19, #FDMOVE_CONTROL_END]
    dmb     ishld   /* the operations may have come with the end, just now */
    cmp     x20, x9
    b.hs    .Lthrough
    add     x22, x20, #FDMOVE_OPERATION_CALL
    adr     x23, .Lmade
    b       .Lmake
.Lmade:
    mov     x10, x20
    str     x0, [x21], #8
    add     x20, x20, #FDMOVE_OPERATION_SIZE
    str     x21, [x19, #FDMOVE_CONTROL_RESULT]
    str     x20, [x19, #FDMOVE_CONTROL_AT]
    ldr     w9, [x10, #FDMOVE_OPERATION_EXPECT]
    cbz     w9, .Lnext
    cmn     x0, #4095
    b.hs    .Lfailed
    cmp     w9, #FDMOVE_EXPECT_EQUALS
    b.ne    .Lnext
    ldr     w9, [x10, #FDMOVE_OPERATION_EXPECTED_KIND]
    ldr     x11, [x10, #FDMOVE_OPERATION_EXPECTED]
    resolve x11, w9
    cmp     x0, x11
    b.eq    .Lnext
.Lfailed:
    ldr     x9, [x19, #FDMOVE_CONTROL_ALONE]
    cbnz    x9, .Lnext
    mov     x9, #1
    str     x9, [x19, #FDMOVE_CONTROL_FAILED]
.Lthrough:
    ldr     x9, [x19, #FDMOVE_CONTROL_ALONE]
    cbnz    x9, fdmove_batch_leave
    ldr     x9, [x19, #FDMOVE_CONTROL_LOOK_AFTER]
    cbz     x9, .Lstands
    str     xzr, [x19, #FDMOVE_CONTROL_LOOK_AFTER]
    ldr     x9, [x19, #FDMOVE_CONTROL_FAILED]
    cbz     x9, fdmove_batch_look
.Lstands:
    mov     x9, #FDMOVE_STATE_WAITING
    add     x10, x19, #FDMOVE_CONTROL_STATE
    stlr    x9, [x10]
    mov     x23, #FDMOVE_NAPS
.Lwait:
    mov     x9, #(FDMOVE_NAP_NS & 0xffff)
    movk    x9, #(FDMOVE_NAP_NS >> 16), lsl #16
    str     xzr, [x19, #FDMOVE_CONTROL_NAP]
    str     x9, [x19, #FDMOVE_CONTROL_NAP + 8]
    mov     x0, #0
    mov     x1, #0
    add     x2, x19, #FDMOVE_CONTROL_NAP
    mov     x3, #0
    mov     x8, #__NR_ppoll
    svc     #0
    subs    x23, x23, #1
    b.ne    .Lwait

    entry   alone
    mov     x9, #1
    str     x9, [x19, #FDMOVE_CONTROL_ALONE]
    ldr     x9, [x19, #FDMOVE_CONTROL_FAILED]
    cbnz    x9, fdmove_batch_undo
    ldr     x9, [x19, #FDMOVE_CONTROL_AT]
    ldr     x10, [x19, #FDMOVE_CONTROL_POINT]
    cmp     x9, x10
    b.lo    fdmove_batch_undo
    ldr     x9, [x19, #FDMOVE_CONTROL_LAST]
    str     x9, [x19, #FDMOVE_CONTROL_END]
    b       fdmove_batch_run

    entry   undo
    ldr     x20, [x19, #FDMOVE_CONTROL_AT]
    ldr     x21, [x19, #FDMOVE_CONTROL_RESULT]
.Lback:
    ldr     x9, [x19, #FDMOVE_CONTROL_FIRST]
    cmp     x20, x9
    b.ls    .Lthrough
    sub     x20, x20, #FDMOVE_OPERATION_SIZE
    sub     x21, x21, #8
    str     x20, [x19, #FDMOVE_CONTROL_AT]
    str     x21, [x19, #FDMOVE_CONTROL_RESULT]
    ldr     x9, [x21]
    cmn     x9, #4095
    b.hs    .Lback
    ldr     x22, [x20, #FDMOVE_OPERATION_UNDO_END]
.Lmore:
    ldr     x9, [x20, #FDMOVE_OPERATION_UNDO_FIRST]
    cmp     x22, x9
    b.ls    .Lback
    sub     x22, x22, #FDMOVE_CALL_SIZE
    adr     x23, .Lundone
    b       .Lmake
.Lundone:
    cmn     x0, #4095
    b.lo    .Lmore
    cmn     x0, #EBADF
    b.ne    .Lworse
    ldr     x9, [x22, #FDMOVE_CALL_NR]
    cmp     x9, #__NR_close
    b.eq    .Lmore
.Lworse:
    ldr     x9, [x19, #FDMOVE_CONTROL_UNDO_ERROR]
    cbnz    x9, .Lmore
    str     x0, [x19, #FDMOVE_CONTROL_UNDO_ERROR]
    b       .Lmore

.Lmake:
    argument x0, 0
    argument x1, 1
    argument x2, 2
    argument x3, 3
    argument x4, 4
    argument x5, 5
    ldr     x8, [x22, #FDMOVE_CALL_NR]
    svc     #0
    br      x23

    entry   leave
    mov     x0, #0
    mov     x8, #__NR_exit
    svc     #0
    brk     #0

    entry   shelter
    entry   gate
    entry   leap
    entry   leap_end
    entry   landing
    entry   landing_clone
    entry   landing_home
    entry   landing_end
    entry   end
