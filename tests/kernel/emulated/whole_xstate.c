/* whole_xstate.so: lets user-mode Linux run on processors with AMX. Preload it: LD_PRELOAD=build/whole_xstate.so linux ...
 *
 * User-mode Linux 6.1 keeps 2696 bytes of a process's vector registers, which is all that AVX-512 has
 * (arch/x86/um/user-offsets.c). With AMX there are 11 KiB, and the host refuses to set fewer than all of them
 * (xstateregs_set() in arch/x86/kernel/fpu/regset.c): the first process dies of SIGSEGV as it begins. So what it sets
 * is laid over all that the host has. The rest is the state of AMX, which a process has to ask for and none here does.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_XSTATE (64 * 1024)

/* Not on the stack: that is a kernel's, of a few pages. User-mode Linux traces its processes from one thread. */
static unsigned char whole[MOST_XSTATE] __attribute__((aligned(64)));

static long set_xstate(pid_t pid, const struct iovec *given)
{
    struct iovec all = {.iov_base = whole, .iov_len = sizeof(whole)};
    long rc = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all);
    if (rc < 0)
        return rc;
    if (given->iov_len >= all.iov_len)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, given);
    memcpy(whole, given->iov_base, given->iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

/* As ptrace(2) says of the C library's: the word of a PEEK is returned, where the kernel stores it at `data`. */
long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_xstate(pid, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        long word = 0;
        if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
