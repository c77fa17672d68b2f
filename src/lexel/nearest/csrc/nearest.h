// The C interface that Python loads (src/lexel/nearest/_cpu.py) and that check.cpp calls.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define LEXEL_API __declspec(dllexport)
#else
#define LEXEL_API __attribute__((visibility("default")))
#endif

extern "C" {
// The type of GOMP_parallel in an OpenMP runtime: it runs a function on `threads` of the runtime's threads.
typedef void (*Parallel)(void (*)(void*), void*, unsigned threads, unsigned flags);

// Makes every later search run on the threads of this runtime.
LEXEL_API void lexel_use_pool(Parallel);

// The names of the levels this machine can run, separated by spaces, the preferred one last.
LEXEL_API const char* lexel_levels();

enum LexelStatus {
    LEXEL_DONE = 0,
    LEXEL_CODES_NOT_FINITE = 1,
    LEXEL_ROWS_NOT_FINITE = 2,
    LEXEL_NO_SUCH_LEVEL = 3,
    LEXEL_NO_MEMORY = 4,  // or no threads
    LEXEL_TOO_MANY = 5,   // rows, codes or neighbours: level.h has MOST_ROWS and MOST_NEIGHBOURS
};

// Finds the `topk` nearest of the k codes for each of the n rows of x. Strides count elements. `metric` is 0 for
// Euclidean distance, 1 for cosine, 2 for the dot product. `level` is one of lexel_levels(); null or "" takes the
// preferred one. Writes n * topk numbers to `indices` and, unless it is null, to `scores`. Returns a LexelStatus.
LEXEL_API int lexel_nearest(const float* x, int64_t n, int64_t xrow, int64_t xcol, const float* codes, int64_t k,
                            int64_t crow, int64_t ccol, int64_t d, int metric, int64_t topk, int threads,
                            const char* level, int64_t* indices, float* scores);
}
