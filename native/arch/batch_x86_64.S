/* SPDX-License-Identifier: MIT */
/*
 * rbx: the control block. r12: the operation. r14: where its result goes. r13: the call to make. r15: where to go then.
 * A syscall leaves all of them alone; it destroys rax, rcx and r11.
 */
#include <asm-generic/errno-base.h>
#include <asm/unistd.h>

    .intel_syntax noprefix

.macro entry name
    .globl fdmove_batch_\name
    .hidden fdmove_batch_\name
fdmove_batch_\name:
.endm

/* Turns what `kind` (a register, 0 to 2) says of the value in `register` into the value. */
.macro resolve register, kind
    test    \kind, \kind
    jz      2f
    cmp     \kind, FDMOVE_KIND_RESULT
    jne     1f
    mov     \register, [\register]
    jmp     2f
1:  movsxd  \register, dword ptr [\register]
2:
.endm

.macro argument register, index
    mov     \register, [r13 + FDMOVE_CALL_ARGS + 8 * \index]
    movzx   eax, byte ptr [r13 + FDMOVE_CALL_KINDS + \index]
    resolve \register, eax
.endm

.macro home register, place
    mov     \register, [rbx + \place]
.endm

/*
 * rbx: a BatchHome. Nothing changes the flags once they are set. Signals are blocked until the stack is the thread's own again: what
 * comes then finds it as if the thread had been interrupted here.
 */
.macro go_home
    lea     rsp, [rbx + FDMOVE_HOME_FLAGS]
    popfq
    home    rsp, FDMOVE_HOME_RSP
    mov     edi, FDMOVE_SIG_SETMASK
    lea     rsi, [rbx + FDMOVE_HOME_MASK]
    mov     edx, 0
    mov     r10d, 8
    mov     eax, __NR_rt_sigprocmask
    syscall
    home    rax, FDMOVE_HOME_RAX
    home    rcx, FDMOVE_HOME_RCX
    home    rdx, FDMOVE_HOME_RDX
    home    rsi, FDMOVE_HOME_RSI
    home    rdi, FDMOVE_HOME_RDI
    home    rbp, FDMOVE_HOME_RBP
    home    r8, FDMOVE_HOME_R8
    home    r9, FDMOVE_HOME_R8 + 8
    home    r10, FDMOVE_HOME_R8 + 16
    home    r11, FDMOVE_HOME_R8 + 24
    home    r12, FDMOVE_HOME_R8 + 32
    home    r13, FDMOVE_HOME_R8 + 40
    home    r14, FDMOVE_HOME_R8 + 48
    home    r15, FDMOVE_HOME_R8 + 56
    jmp     qword ptr [rbx + FDMOVE_HOME_LEAP_AT]
.endm

    .section .rodata
    .balign 16
    entry   code

.macro ask number, of, result
    movsxd  rdi, dword ptr [r12]
    mov     esi, \of
    mov     eax, \number
    syscall
    mov     [r14 + \result], rax
.endm

    entry   born
    mov     rbx, r9

    entry   look
    mov     r12, [rbx + FDMOVE_CONTROL_LOOK_AT]
    mov     r14, [rbx + FDMOVE_CONTROL_LOOK_OUT]
.Llook:
    cmp     r12, [rbx + FDMOVE_CONTROL_LOOK_END]
    jae     .Llooked
    movsxd  rdi, dword ptr [r12]
    lea     rsi, [rip + .Lempty]
    mov     edx, FDMOVE_LOOK_HOW
    mov     r10d, FDMOVE_LOOK_WANTED
    lea     r8, [r14 + FDMOVE_LOOK_STATX]
    mov     eax, __NR_statx
    syscall
    mov     [r14 + FDMOVE_LOOK_ASKED], rax
    ask     __NR_fcntl, FDMOVE_F_GETFL, FDMOVE_LOOK_FLAGS
    ask     __NR_fcntl, FDMOVE_F_GETFD, FDMOVE_LOOK_CLOEXEC
    cmp     qword ptr [rbx + FDMOVE_CONTROL_LOOK_SIGNALS], 0
    je      .Loffset
    lea     rdx, [r14 + FDMOVE_LOOK_OWNER]
    ask     __NR_fcntl, FDMOVE_F_GETOWN_EX, FDMOVE_LOOK_OWNED
    ask     __NR_fcntl, FDMOVE_F_GETSIG, FDMOVE_LOOK_SIGNAL
    jmp     .Lasked
.Loffset:
    mov     edx, FDMOVE_SEEK_CUR
    ask     __NR_lseek, 0, FDMOVE_LOOK_OFFSET
.Lasked:
    add     r12, 4
    add     r14, FDMOVE_LOOK_SIZE
    jmp     .Llook
.Llooked:
    mov     qword ptr [rbx + FDMOVE_CONTROL_LOOKED], 1
    jmp     fdmove_batch_run
.Lempty:
    .byte   0
    .balign 8
.Lall_signals:
    .quad   -1

    entry   run
    mov     r12, [rbx + FDMOVE_CONTROL_AT]
    mov     r14, [rbx + FDMOVE_CONTROL_RESULT]
.Lnext:
    cmp     r12, [rbx + FDMOVE_CONTROL_END]
    jae     .Lthrough
    mov     rax, [rbx + FDMOVE_CONTROL_GATE_AT]
    cmp     qword ptr [rax + FDMOVE_GATE_ORPHANED], 0
    jne     .Lorphaned
.Lgoes_on:
    lea     r13, [r12 + FDMOVE_OPERATION_CALL]
    lea     r15, [rip + .Lmade]
    jmp     .Lmake
.Lmade:
    mov     [r14], rax
    mov     rdx, r12
    add     r12, FDMOVE_OPERATION_SIZE
    add     r14, 8
    mov     [rbx + FDMOVE_CONTROL_RESULT], r14
    mov     [rbx + FDMOVE_CONTROL_AT], r12
    mov     ecx, [rdx + FDMOVE_OPERATION_EXPECT]
    test    ecx, ecx
    jz      .Lnext
    cmp     rax, -4095
    jae     .Lfailed
    cmp     ecx, FDMOVE_EXPECT_EQUALS
    jne     .Lnext
    mov     ecx, [rdx + FDMOVE_OPERATION_EXPECTED_KIND]
    mov     rdx, [rdx + FDMOVE_OPERATION_EXPECTED]
    resolve rdx, ecx
    cmp     rax, rdx
    je      .Lnext
.Lfailed:
    cmp     qword ptr [rbx + FDMOVE_CONTROL_ALONE], 0
    jne     .Lnext
    mov     qword ptr [rbx + FDMOVE_CONTROL_FAILED], 1
.Lthrough:
    cmp     qword ptr [rbx + FDMOVE_CONTROL_ALONE], 0
    jne     fdmove_batch_leave
    cmp     qword ptr [rbx + FDMOVE_CONTROL_LOOK_AFTER], 0
    je      .Lstands
    mov     qword ptr [rbx + FDMOVE_CONTROL_LOOK_AFTER], 0
    cmp     qword ptr [rbx + FDMOVE_CONTROL_FAILED], 0
    je      fdmove_batch_look
.Lstands:
    mov     qword ptr [rbx + FDMOVE_CONTROL_STATE], FDMOVE_STATE_WAITING
    mov     r15d, FDMOVE_NAPS
.Lwait:
    mov     rax, [rbx + FDMOVE_CONTROL_GATE_AT]
    cmp     qword ptr [rax + FDMOVE_GATE_ORPHANED], 0
    jne     fdmove_batch_alone
    mov     qword ptr [rbx + FDMOVE_CONTROL_NAP], 0
    mov     qword ptr [rbx + FDMOVE_CONTROL_NAP + 8], FDMOVE_NAP_NS
    xor     edi, edi
    xor     esi, esi
    lea     rdx, [rbx + FDMOVE_CONTROL_NAP]
    xor     r10d, r10d
    mov     eax, __NR_ppoll
    syscall
    dec     r15d
    jnz     .Lwait

    entry   alone
    mov     qword ptr [rbx + FDMOVE_CONTROL_ALONE], 1
    cmp     qword ptr [rbx + FDMOVE_CONTROL_FAILED], 0
    jne     fdmove_batch_undo
    mov     rax, [rbx + FDMOVE_CONTROL_AT]
    cmp     rax, [rbx + FDMOVE_CONTROL_POINT]
    jb      fdmove_batch_undo
    mov     rax, [rbx + FDMOVE_CONTROL_LAST]
    mov     [rbx + FDMOVE_CONTROL_END], rax
    jmp     fdmove_batch_run

.Lorphaned:
    cmp     qword ptr [rbx + FDMOVE_CONTROL_ALONE], 0
    je      fdmove_batch_alone
    jmp     .Lgoes_on

    entry   undo
    mov     r12, [rbx + FDMOVE_CONTROL_AT]
    mov     r14, [rbx + FDMOVE_CONTROL_RESULT]
.Lback:
    cmp     r12, [rbx + FDMOVE_CONTROL_FIRST]
    jbe     .Lthrough
    sub     r12, FDMOVE_OPERATION_SIZE
    sub     r14, 8
    mov     [rbx + FDMOVE_CONTROL_AT], r12
    mov     [rbx + FDMOVE_CONTROL_RESULT], r14
    cmp     qword ptr [r14], -4095
    jae     .Lback
    mov     r13, [r12 + FDMOVE_OPERATION_UNDO_END]
.Lmore:
    cmp     r13, [r12 + FDMOVE_OPERATION_UNDO_FIRST]
    jbe     .Lback
    sub     r13, FDMOVE_CALL_SIZE
    lea     r15, [rip + .Lundone]
    jmp     .Lmake
.Lundone:
    cmp     rax, -4095
    jb      .Lmore
    cmp     rax, -EBADF
    jne     .Lworse
    cmp     qword ptr [r13 + FDMOVE_CALL_NR], __NR_close
    je      .Lmore
.Lworse:
    cmp     qword ptr [rbx + FDMOVE_CONTROL_UNDO_ERROR], 0
    jne     .Lmore
    mov     [rbx + FDMOVE_CONTROL_UNDO_ERROR], rax
    jmp     .Lmore

.Lmake:
    argument rdi, 0
    argument rsi, 1
    argument rdx, 2
    argument r10, 3
    argument r8, 4
    argument r9, 5
    mov     rax, [r13 + FDMOVE_CALL_NR]
    syscall
    jmp     r15

    entry   leave
    mov     rdi, [rbx + FDMOVE_CONTROL_GATE_AT]
    lock dec dword ptr [rdi + FDMOVE_GATE_CLOSED]
    jg      .Lleft
    mov     esi, FDMOVE_FUTEX_WAKE
    mov     edx, 0x7fffffff
    mov     eax, __NR_futex
    syscall
.Lleft:
    cmp     qword ptr [rbx + FDMOVE_CONTROL_GUEST], 0
    jne     .Lguest
    xor     edi, edi
    mov     eax, __NR_exit
    syscall
    ud2
.Lguest:
    mov     qword ptr [rbx + FDMOVE_CONTROL_STATE], FDMOVE_STATE_HOME
    lea     rbx, [rbx + FDMOVE_CONTROL_HOME]
    jmp     fdmove_batch_gate

    /* rbx: a BatchHome. Only where the tracer has died does a thread ever come here. */
    entry   shelter
    mov     edi, FDMOVE_SIG_SETMASK
    lea     rsi, [rip + .Lall_signals]
    lea     rdx, [rbx + FDMOVE_HOME_MASK]
    mov     r10d, 8
    mov     eax, __NR_rt_sigprocmask
    syscall
    entry   gate
    mov     r12, [rbx + FDMOVE_HOME_GATE]
    mov     qword ptr [r12 + FDMOVE_GATE_ORPHANED], 1
.Lclosed:
    mov     edx, [r12 + FDMOVE_GATE_CLOSED]
    test    edx, edx
    jle     .Lhome
    mov     rdi, r12
    mov     esi, FDMOVE_FUTEX_WAIT
    xor     r10d, r10d /* with a timeout it would overwrite the thread's restart block */
    mov     eax, __NR_futex
    syscall
    jmp     .Lclosed

.Lhome:
    go_home

    /* stands in each BatchHome, at the same distance from what it reads */
    entry   leap
    mov     rbx, [rip + fdmove_batch_leap - FDMOVE_HOME_LEAP + FDMOVE_HOME_RBX]
    jmp     qword ptr [rip + fdmove_batch_leap - FDMOVE_HOME_LEAP + FDMOVE_HOME_RIP]
    entry   leap_end

    /* behind the image of a vDSO: native/landing.h. r8: where a new thread begins. */
    .balign 16
    entry   landing
    syscall
.Lreturned:
    mov     rbx, [rip + fdmove_batch_landing + FDMOVE_LANDING_CONTROL]
    jmp     qword ptr [rip + fdmove_batch_landing + FDMOVE_LANDING_CODE]
    entry   landing_clone
    syscall
    test    rax, rax
    jnz     .Lreturned
    jmp     r8
    entry   landing_home
    go_home
    entry   landing_end

    entry   end
    .att_syntax
