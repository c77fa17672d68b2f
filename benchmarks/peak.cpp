// The float32 multiply-add peak of this machine: sixteen independent accumulators in registers, on every thread.
#include <chrono>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
typedef float Vec __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float Vec __attribute__((vector_size(32)));
#else
typedef float Vec __attribute__((vector_size(16)));
#endif
constexpr int LANES = sizeof(Vec) / sizeof(float), WAYS = LANES == 8 ? 12 : 16;
#if defined(__x86_64__)
#define KEEP(a) __asm__ volatile("" : "+v"(a))
#else
#define KEEP(a) __asm__ volatile("" : "+w"(a))
#endif

static void spin(long rounds) {
    Vec acc[WAYS] = {}, a = {}, b = {};
    KEEP(a);
    KEEP(b);
    for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < WAYS; i++) {
            acc[i] += a * b;
            KEEP(acc[i]);
        }
    }
}

extern "C" double peak_gflops(int threads, double seconds) {
    long rounds = 1 << 16;
    for (;;) {
        auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> team;
        for (int i = 1; i < threads; i++) team.emplace_back(spin, rounds);
        spin(rounds);
        for (auto& t : team) t.join();
        double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (took > seconds) return 2.0 * LANES * WAYS * rounds * threads / took / 1e9;
        rounds *= 2;
    }
}
