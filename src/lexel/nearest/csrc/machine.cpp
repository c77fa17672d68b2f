#include "machine.h"

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lexel {

#if defined(__x86_64__)
extern const Level level_plain, level_avx2, level_avx512;
#elif defined(__aarch64__)
extern const Level level_neon;
#else
extern const Level level_plain;
#endif

namespace {

// Whether the processor has AMX for bf16, and the kernel lets this process use it.
bool tiles_allowed() {
#if defined(__linux__) && defined(__x86_64__) && defined(LEXEL_WITH_AMX)
    unsigned eax = 7, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (!(edx >> 22 & 1) || !(edx >> 24 & 1)) return false;  // amx-bf16, amx-tile
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

// Whether the processor multiplies pairs of bf16 numbers.
bool pairs_supported() {
#if defined(__x86_64__) && defined(LEXEL_WITH_BF16)
    unsigned eax = 7, ebx, ecx = 1, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return eax >> 5 & 1;
#else
    return false;
#endif
}

}  // namespace

const std::vector<Choice>& choices() {
    static const std::vector<Choice> found = [] {
        std::vector<Choice> c;
#if defined(__x86_64__)
        __builtin_cpu_init();
        c.push_back({"plain", &level_plain, false, false});
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            c.push_back({"avx2", &level_avx2, false, false});
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            c.push_back({"avx512", &level_avx512, false, false});
            // bf16 pairs run at twice the float32 rate on AMD, at half of it on Intel: there plain AVX-512 is preferred
            if (pairs_supported())
                c.insert(__builtin_cpu_is("intel") ? c.end() - 1 : c.end(),
                         {"avx512_bf16", &level_avx512, true, false});
            if (tiles_allowed()) c.push_back({"amx", &level_avx512, false, true});
        }
#elif defined(__aarch64__)
        c.push_back({"neon", &level_neon, false, false});
#else
        c.push_back({"plain", &level_plain, false, false});
#endif
        return c;
    }();
    return found;
}

}  // namespace lexel
