// A standalone check of the kernel: every level of this machine against a brute force in double, over random shapes,
// strides and kinds of data. Built with the sanitizers by `make sanitize`; also runs under an emulator, for NEON.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "nearest.h"

namespace {

std::mt19937_64 engine(1);
int pick(const std::vector<int>& from) { return from[engine() % from.size()]; }

double score(const float* x, const float* e, int d, int metric) {
    double sum = 0, norm = 0;
    for (int t = 0; t < d; t++) {
        double a = x[t], b = e[t];
        sum += metric == 0 ? -(a - b) * (a - b) : a * b;
        norm += b * b;
    }
    return metric == 1 ? (norm > 0 ? sum / std::sqrt(norm) : 0) : sum;
}

int check(const std::string& level) {
    const int d = pick({1, 2, 3, 5, 8, 9, 10, 16, 20, 21, 32, 33, 64, 70, 130}), k = pick({1, 7, 16, 17, 40, 333, 1000});
    const int n = pick({0, 1, 5, 33, 100, 900}), metric = pick({0, 1, 2}), topk = std::min(k, pick({1, 1, 1, 4}));
    const int kind = pick({0, 1, 2, 3, 4}), threads = pick({1, 2, 3}), xcol = pick({1, 2}), ccol = pick({1, 3});
    const float scale = std::ldexp(1.0f, pick({0, 0, 90, -100, -130})), shift = float(pick({0, 0, 1000}));
    std::normal_distribution<float> normal;
    std::vector<float> rows(size_t(n) * d), codes(size_t(k) * d);
    for (float& a : codes) a = normal(engine);
    for (float& a : rows) a = normal(engine);
    for (int i = 0; i < k; i++)
        for (int t = 0; t < d; t++) {
            float& a = codes[size_t(i) * d + t];
            if (kind == 1) a = codes[size_t(i % (k / 4 + 1)) * d + t];                         // duplicates
            if (kind == 2) a = codes[size_t(i % (k / 4 + 1)) * d + t] * (1 + 1e-6f * (i % 9));  // a hair apart
            if (kind == 3 && i % 50 == 3) a *= 1e5f;                                            // outliers
            if (kind == 4) a = std::round(a);                                                   // ties
        }
    if (kind == 4)
        for (float& a : rows) a = std::round(a);
    for (float& a : codes) a = (a + shift) * scale;
    for (float& a : rows) a = (a + shift) * scale;
    std::vector<float> x(size_t(n) * d * xcol + 1), e(size_t(k) * d * ccol + 1);  // exactly as long as they need to be
    for (size_t i = 0; i < rows.size(); i++) x[i * xcol] = rows[i];
    for (size_t i = 0; i < codes.size(); i++) e[i * ccol] = codes[i];
    std::vector<int64_t> found(size_t(n) * topk);
    std::vector<float> scores(size_t(n) * topk);
    int status = lexel_nearest(x.data(), n, int64_t(d) * xcol, xcol, e.data(), k, int64_t(d) * ccol, ccol, d, metric, topk,
                               threads, level.c_str(), found.data(), scores.data());
    int wrong = status != 0;
    for (int i = 0; i < n; i++) {
        double best = -INFINITY, size = 0;
        for (int j = 0; j < k; j++) best = std::max(best, score(&rows[size_t(i) * d], &codes[size_t(j) * d], d, metric));
        for (int t = 0; t < d; t++) size += double(rows[size_t(i) * d + t]) * rows[size_t(i) * d + t];
        double slack = metric == 0 ? std::fabs(best) * 1e-13 : 1e-13 * std::sqrt(size) * (metric == 1 ? 1 : 1e7 * scale);
        const int64_t first = found[size_t(i) * topk];
        if (first < 0 || first >= k || score(&rows[size_t(i) * d], &codes[size_t(first) * d], d, metric) < best - slack) wrong++;
    }
    if (wrong)
        std::printf("%s: status %d, %d wrong of %d: d %d k %d metric %d topk %d kind %d scale %g shift %g\n", level.c_str(), status,
                    wrong, n, d, k, metric, topk, kind, double(scale), double(shift));
    return wrong;
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
    std::istringstream levels(lexel_levels());
    int wrong = 0;
    for (std::string level; levels >> level;) {
        for (int i = 0; i < rounds; i++) wrong += check(level);
        std::printf("%s: %d problems checked\n", level.c_str(), rounds);
    }
    return wrong != 0;
}
