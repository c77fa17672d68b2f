// The threads of a search.
#pragma once
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "nearest.h"

namespace lexel {

// The pool of the OpenMP runtime that torch has loaded, where Python found it: its threads wait for work in a loop, and
// would take the processors from any others. Without it a team starts threads of its own, which live for one call.
inline std::atomic<Parallel> pool{nullptr};

// While one lives, floating-point numbers round to nearest and tiny ones are kept, as the bounds need, whatever the
// caller has set; it then restores the caller's modes.
class FloatMode {
public:
#if defined(__x86_64__)
    FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatMode() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatMode() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
    }
    ~FloatMode() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

private:
    uint64_t saved_;
#else
    FloatMode() {}
#endif
};

class Team {
public:
    explicit Team(int size) : size_(size) {}
    ~Team() {
        stop_ = true;
        round_.fetch_add(1);
        for (auto& t : threads_) t.join();
    }
    int size() const { return size_; }

    // Runs job(i, thread) for 0 <= i < count.
    template <class Job>
    void spread(int64_t count, const Job& job) {
        if (size_ == 1 || count == 1) {
            for (int64_t i = 0; i < count; i++) job(i, 0);
            return;
        }
        std::atomic<int64_t> next{0};
        run([&](int thread) {
            FloatMode here;
            for (int64_t i; (i = next.fetch_add(1)) < count;) job(i, thread);
        });
    }

private:
    // Runs job(thread) on every thread.
    void run(const std::function<void(int)>& job) {
        if (Parallel parallel = pool.load()) {
            struct Shared {
                const std::function<void(int)>& job;
                std::atomic<int> next;
            } shared{job, {0}};
            parallel(
                [](void* data) {
                    Shared& s = *static_cast<Shared*>(data);
                    s.job(s.next.fetch_add(1));
                },
                &shared, unsigned(size_), 0);
            return;
        }
        job_ = &job;
        left_ = int(threads_.size());
        round_.fetch_add(1);
        while (int(threads_.size()) < size_ - 1) {
            int id = int(threads_.size()) + 1;
            left_.fetch_add(1);
            try {
                threads_.emplace_back([this, id, seen = round_.load()] { loop(id, seen); });
            } catch (...) {  // no thread to be had: fewer will do
                left_.fetch_sub(1);
                size_ = int(threads_.size()) + 1;
            }
        }
        job(0);
        while (left_.load()) std::this_thread::yield();
    }

    // What a thread of our own does until the team ends: each round's job.
    void loop(int id, unsigned seen) {
        for (;;) {
            if (stop_) return;
            (*job_)(id);
            left_.fetch_sub(1);
            while (round_.load() == seen) std::this_thread::yield();
            seen++;
        }
    }
    int size_;
    std::atomic<bool> stop_{false};
    std::atomic<unsigned> round_{0};
    std::atomic<int> left_{0};
    const std::function<void(int)>* job_ = nullptr;
    std::vector<std::thread> threads_;
};

}  // namespace lexel
