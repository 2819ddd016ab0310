// What codecs promise, alone and cut over ranks, and what indexers promise of pieces that formats
// describe.
#pragma once
#include <vector>

#include "runtime/engine/conformance/search.h"
#include "runtime/engine/conformance/subject.h"

namespace conclave::engine::conformance {

/// A matrix, rows and columns of it, and a part of these.
struct CodecCase {
    int64_t index = 0;  ///< of Subjects::fixed
    int64_t n = 1, k = 1;
    uint64_t seed = 0;
    Interval window;  ///< rows that are decoded to compare with; all of a small matrix
    Interval rows, cols;
    int ranks = 1;
};

using CodecCheck = Verdict (*)(const Subject& s, const CodecCase& c);
struct CodecLaw {
    const char* name;
    CodecCheck check;
    bool blocks;  ///< those after it say nothing where it is broken
};
/// In the order in which they build on each other.
const std::vector<CodecLaw>& codec_laws();

Outcome search_codec(const CodecLaw& law, const Subjects& subjects, const Trial& trial);

/// One of indexer_laws(), by index, for the indexed pieces of the subjects; tries nothing where
/// there are none.
Outcome search_indexed(size_t law, const Subjects& subjects, const Trial& trial);

std::shared_ptr<const Subject> subject_of(const Subjects& subjects, int64_t index, int64_t n,
                                          int64_t k, uint64_t seed);

}  // namespace conclave::engine::conformance
