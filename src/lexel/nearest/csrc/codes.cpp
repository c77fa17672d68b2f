#include "codes.h"

#include <algorithm>
#include <cmath>

#include "nearest.h"

namespace lexel {
namespace {

constexpr int64_t CENTRE_SAMPLE = 2048;  // codes that are looked at for a centre
constexpr double FAR_AWAY = 8;           // a code that is so many times farther from the mean than half of them
constexpr double AS_NEAR = 4;            // squared: an anchor twice as far as a group's own serves the group, too

double coordinate(const Problem& P, int64_t code, int64_t t) { return P.codes[code * P.crow + t * P.ccol]; }

bool equal_codes(const Problem& P, int64_t i, int64_t j) {
    int64_t t = 0;
    while (t < P.d && coordinate(P, i, t) == coordinate(P, j, t)) t++;
    return t == P.d;
}

// Numbers of no importance, the same in every run.
std::vector<double> arbitrary_direction(int d) {
    std::vector<double> direction(static_cast<size_t>(d));
    uint64_t state = 1;
    for (double& a : direction) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        a = double(state >> 40) - double(1 << 23);
    }
    return direction;
}

struct Key {
    double place;         // along the arbitrary direction
    int32_t length, id;  // length: the exponent of the norm
};

std::vector<Key> sorted_keys(const Problem& P) {
    std::vector<Key> keys(static_cast<size_t>(P.k));
    const std::vector<double> direction = arbitrary_direction(P.d);
    for (int64_t i = 0; i < P.k; i++) {
        const int32_t id = P.ids ? P.ids[i] : int32_t(i);
        double square = 0, place = 0;
        for (int64_t t = 0; t < P.d; t++) {
            const double a = (coordinate(P, id, t) - P.centre[t]) * P.scale;
            square += a * a;
            place += a * direction[t];
        }
        if (P.metric == COSINE) place /= square > 0 ? std::sqrt(square) : 1, square = 1;
        keys[i] = {place, square > 0 ? std::ilogb(square) / 2 : -9999, id};
    }
    std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
        return a.length != b.length ? a.length < b.length : a.place != b.place ? a.place < b.place : a.id < b.id;
    });
    return keys;
}

// The largest squared distance of a code of the group that starts at `first` from the code `anchor`.
double squared_radius(const Problem& P, int64_t first, int64_t anchor) {
    double most = 0;
    for (int64_t i = first; i < std::min(first + GROUP, P.k); i++) {
        double sum = 0;
        for (int64_t t = 0; t < P.d; t++) {
            const double a = coordinate(P, P.ids[i], t) - coordinate(P, P.ids[anchor], t);
            sum += a * a;
        }
        most = std::max(most, sum);
    }
    return most;
}

}  // namespace

// The centre is the mean of a sample of the codes. A few codes far away from the others would draw it out of their
// midst; then it is the mean of the nearer half.
void find_centre(Problem& P, std::vector<float>& centre) {
    const int64_t step = std::max<int64_t>(1, P.k / CENTRE_SAMPLE), d = P.d;
    centre.assign(size_t(d), 0.0f);
    P.scale = 1;
    P.centre = centre.data();
    if (P.metric == COSINE) return;
    std::vector<double> far(size_t((P.k + step - 1) / step), 0.0);  // the largest coordinate, seen from the centre
    auto average = [&](double within) {
        std::vector<double> sum(size_t(d), 0.0);
        int64_t seen = 0;
        for (int64_t i = 0; i < P.k; i += step) {
            if (!(far[i / step] <= within)) continue;
            for (int64_t t = 0; t < d; t++) sum[t] += coordinate(P, i, t);
            seen++;
        }
        for (int64_t t = 0; t < d; t++) centre[t] = float(sum[t] / double(seen));
    };
    average(0);
    double top = 0;
    for (int64_t i = 0; i < P.k; i += step) {
        double here = 0;
        for (int64_t t = 0; t < d; t++) here = std::max(here, std::fabs(coordinate(P, i, t) - centre[t]));
        far[i / step] = here;
        top = std::max(top, here);
    }
    if (!(top < 1e39)) throw Failure{LEXEL_CODES_NOT_FINITE};
    if (top > 0) P.scale = std::ldexp(1.0f, std::clamp(-std::ilogb(top), -126, 126));
    std::vector<double> sorted = far;
    std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
    const double middle = sorted[sorted.size() / 2];
    if (top > FAR_AWAY * middle) average(middle);
}

// Sorts by length (to a factor of two), then along an arbitrary direction. A long code spoils the bound of its group, so
// long codes are to share groups. Codes too close together to be told apart then fill a few groups, instead of a place
// in each of many. Equal codes meet, and the first of them stands for all.
std::vector<int32_t> sorted_codes(const Problem& P) {
    const std::vector<Key> keys = sorted_keys(P);
    std::vector<int32_t> order;
    for (size_t i = 0, first = 0; i < keys.size(); i++) {
        if (P.topk > 1 || order.empty() || !equal_codes(P, order.back(), keys[i].id)) order.push_back(keys[i].id);
        if (i + 1 < keys.size() && keys[i].length == keys[i + 1].length) continue;
        if (P.topk == 1 && i - first >= 4 * GROUP)  // the next length starts a group: copies of a code fill this one
            while (order.size() % GROUP) order.push_back(order.back());
        first = i + 1;
    }
    return order;
}

// A group's anchor is its first code, or the anchor of the group before where that is about as near: the decision
// prepares a row anew for every anchor.
std::vector<int32_t> find_anchors(const Problem& P) {
    std::vector<int32_t> anchors;
    for (int64_t i = 0; i < P.k; i += GROUP) {
        const bool shared = i > 0 && squared_radius(P, i, anchors.back()) <= AS_NEAR * squared_radius(P, i, i);
        anchors.push_back(shared ? anchors.back() : int32_t(i));
    }
    return anchors;
}

}  // namespace lexel
