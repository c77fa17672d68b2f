// What this machine can run.
#pragma once
#include <vector>

#include "level.h"

namespace lexel {

struct Choice {
    const char* name;  // what LEXEL_NEAREST calls it
    const Level* level;
    bool pairs, tiles;  // whether the first pass may use bf16 pairs, and AMX tiles
};

// The choices of this machine, the preferred one last.
const std::vector<Choice>& choices();

}  // namespace lexel
