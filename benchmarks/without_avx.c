/* Loaded before a program (LD_PRELOAD) it hides AVX and all that came with and after it from what asks by CPUID.
 *
 * Linux lets a process have CPUID trapped (ARCH_SET_CPUID) where the processor can (the flag cpuid_fault); the trap
 * asks the processor itself and takes bits out of the answer. Instructions run as before, only nobody knows of them:
 * times are those of this processor with the kernels that another one would get.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { FMA = 1u << 12, AVX = 1u << 28, F16C = 1u << 29 };

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0xa2) { /* a fault of another kind: it ends the process when it comes again */
    signal(number, SIG_DFL);
    return;
  }
  unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __cpuid_count(leaf, part, a, b, c, d);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  if (leaf == 1) c &= ~(FMA | AVX | F16C);
  if (leaf == 7) a = b = c = d = 0; /* AVX2, AVX-512, AMX */
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, 0);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
}
