/* SPDX-License-Identifier: MIT */
/*
 * What the loop of batch_*.S and native/batch.cc agree on: offsets in bytes, for both the assembler and the compiler.
 * native/batch.cc has the structs and asserts that they lie like this.
 */
#ifndef FDMOVE_BATCH_LAYOUT_H
#define FDMOVE_BATCH_LAYOUT_H

/* BatchCall */
#define FDMOVE_CALL_NR 0
#define FDMOVE_CALL_KINDS 8 /* one byte an argument */
#define FDMOVE_CALL_ARGS 16
#define FDMOVE_CALL_SIZE 64

/* how an argument, or what is expected, is told */
#define FDMOVE_KIND_VALUE 0  /* by itself */
#define FDMOVE_KIND_RESULT 1 /* by the address of 64 bits */
#define FDMOVE_KIND_LOAD 2   /* by the address of a signed 32-bit value */

/* BatchOperation */
#define FDMOVE_OPERATION_CALL 0
#define FDMOVE_OPERATION_EXPECT 64
#define FDMOVE_OPERATION_EXPECTED_KIND 72
#define FDMOVE_OPERATION_EXPECTED 80
#define FDMOVE_OPERATION_UNDO_FIRST 88 /* address of the calls that take it back, */
#define FDMOVE_OPERATION_UNDO_END 96   /* the last one made first */
#define FDMOVE_OPERATION_SIZE 104

#define FDMOVE_EXPECT_ANY 0
#define FDMOVE_EXPECT_SUCCESS 1
#define FDMOVE_EXPECT_EQUALS 2

/* BatchControl */
#define FDMOVE_CONTROL_STATE 0
#define FDMOVE_CONTROL_AT 8      /* the next operation */
#define FDMOVE_CONTROL_RESULT 16 /* where its result goes */
#define FDMOVE_CONTROL_END 24    /* the first operation that is not to run now */
#define FDMOVE_CONTROL_FIRST 32  /* of the table */
#define FDMOVE_CONTROL_LAST 40   /* end of the table */
#define FDMOVE_CONTROL_POINT 48  /* an abandoned batch that has come this far goes on; before it, it takes all back */
#define FDMOVE_CONTROL_FAILED 56 /* the operation before AT did not meet its expectation */
#define FDMOVE_CONTROL_ALONE 64  /* nobody waits for us any more */
#define FDMOVE_CONTROL_UNDO_ERROR 72
#define FDMOVE_CONTROL_NAP 80 /* a timespec, for the thread's own use */
#define FDMOVE_CONTROL_LOOK_AT 96   /* the fds to look at first, 32 bits each */
#define FDMOVE_CONTROL_LOOK_END 104 /* their end */
#define FDMOVE_CONTROL_LOOK_OUT 112 /* a BatchLook for each */
#define FDMOVE_CONTROL_LOOK_SIGNALS 120 /* at who is signalled, in place of the offset */
#define FDMOVE_CONTROL_LOOKED 128       /* the look is over */
#define FDMOVE_CONTROL_LOOK_AFTER 136   /* when the part that runs is through: a look as well */
#define FDMOVE_CONTROL_GUEST 144        /* it runs on a thread of the job, which goes home when it leaves: */
#define FDMOVE_CONTROL_GATE_AT 152      /* address of the gate that it counts down when it leaves */
#define FDMOVE_CONTROL_HOME 160         /* a BatchHome */
#define FDMOVE_CONTROL_SIZE 352

/* BatchGate, right behind: what threads of the job that have gone into their shelters wait for, and what they tell */
#define FDMOVE_GATE_CLOSED 0   /* so many batches are under way; 32 bits, a futex */
#define FDMOVE_GATE_ORPHANED 8 /* one of them runs: there is no tracer any more */
#define FDMOVE_GATE_SIZE 16

/* BatchHome, x86_64 only: the registers with which a thread goes on by itself, 8 bytes each */
#define FDMOVE_HOME_RAX 0
#define FDMOVE_HOME_RBX 8
#define FDMOVE_HOME_RCX 16
#define FDMOVE_HOME_RDX 24
#define FDMOVE_HOME_RSI 32
#define FDMOVE_HOME_RDI 40
#define FDMOVE_HOME_RBP 48
#define FDMOVE_HOME_RSP 56
#define FDMOVE_HOME_R8 64 /* to r15 */
#define FDMOVE_HOME_RIP 128
#define FDMOVE_HOME_FLAGS 136
#define FDMOVE_HOME_MASK 144    /* its blocked signals */
#define FDMOVE_HOME_GATE 152    /* address of the gate that it waits at before */
#define FDMOVE_HOME_LEAP_AT 160 /* address of */
#define FDMOVE_HOME_LEAP 168    /* the two instructions that leave nothing of ours behind */
#define FDMOVE_HOME_SIZE 192    /* 16 bytes of code, and 8 to spare */

/* a landing, x86_64 only: its code, and then */
#define FDMOVE_LANDING_CODE 224 /* what a thread goes on with that comes back from a call alone, */
#define FDMOVE_LANDING_CONTROL 232 /* and for what */
#define FDMOVE_LANDING_OWNER 240 /* process id of the tracer */
#define FDMOVE_LANDING_HOME 256  /* a BatchHome */
#define FDMOVE_LANDING_SIZE 448

/* BatchLook: what statx(2) and fcntl(2) tell of an fd, and where lseek(2) finds it */
#define FDMOVE_LOOK_STATX 0     /* 256 bytes */
#define FDMOVE_LOOK_OWNER 256   /* a f_owner_ex */
#define FDMOVE_LOOK_ASKED 264   /* the results of statx, */
#define FDMOVE_LOOK_OWNED 272   /* F_GETOWN_EX, */
#define FDMOVE_LOOK_SIGNAL 280  /* F_GETSIG, */
#define FDMOVE_LOOK_FLAGS 288   /* F_GETFL, */
#define FDMOVE_LOOK_CLOEXEC 296 /* F_GETFD, */
#define FDMOVE_LOOK_OFFSET 304  /* and lseek */
#define FDMOVE_LOOK_SIZE 312

#define FDMOVE_LOOK_WANTED 0x1307 /* STATX_TYPE, MODE, NLINK, INO, SIZE, MNT_ID */
#define FDMOVE_LOOK_HOW 0x5000    /* AT_EMPTY_PATH, AT_STATX_DONT_SYNC */
#define FDMOVE_F_GETFD 1
#define FDMOVE_F_GETFL 3
#define FDMOVE_F_GETSIG 11
#define FDMOVE_F_GETOWN_EX 16
#define FDMOVE_SEEK_CUR 1
#define FDMOVE_SIG_SETMASK 2
#define FDMOVE_FUTEX_WAIT 128 /* FUTEX_WAIT_PRIVATE */
#define FDMOVE_FUTEX_WAKE 129

/* how often, and for how many nanoseconds, a part that is through waits for the tracer before it takes the tracer for dead */
#define FDMOVE_NAPS 300
#define FDMOVE_NAP_NS 10000000

#define FDMOVE_STATE_RUNNING 0
#define FDMOVE_STATE_WAITING 1
#define FDMOVE_STATE_HOME 2 /* a guest that went alone has nothing left to do but to go home */

#endif
