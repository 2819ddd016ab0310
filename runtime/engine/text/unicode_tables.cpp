#include "runtime/engine/text/unicode_tables.h"

#include <algorithm>
#include <iterator>

namespace conclave::engine {
namespace {

struct Range {
    uint32_t first, last;
    CharClass classes;
};

// General categories of UnicodeData 16.0 where 15.0 has none.
constexpr Range kSince15[] = {{0x897, 0x897, kMark},
                              {0x1b4e, 0x1b4f, kPunctuation},
                              {0x1b7f, 0x1b7f, kPunctuation},
                              {0x1c89, 0x1c89, kUpper},
                              {0x1c8a, 0x1c8a, kLower},
                              {0x2427, 0x2429, kSymbol},
                              {0x2ffc, 0x2fff, kSymbol},
                              {0x31e4, 0x31e5, kSymbol},
                              {0x31ef, 0x31ef, kSymbol},
                              {0xa7cb, 0xa7cc, kUpper},
                              {0xa7cd, 0xa7cd, kLower},
                              {0xa7da, 0xa7da, kUpper},
                              {0xa7db, 0xa7db, kLower},
                              {0xa7dc, 0xa7dc, kUpper},
                              {0x105c0, 0x105f3, kOther},
                              {0x10d40, 0x10d49, kNumber},
                              {0x10d4a, 0x10d4f, kOther},
                              {0x10d50, 0x10d65, kUpper},
                              {0x10d69, 0x10d6d, kMark},
                              {0x10d6e, 0x10d6e, kPunctuation},
                              {0x10d6f, 0x10d6f, kOther},
                              {0x10d70, 0x10d85, kLower},
                              {0x10d8e, 0x10d8f, kSymbol},
                              {0x10ec2, 0x10ec4, kOther},
                              {0x10efc, 0x10efc, kMark},
                              {0x11380, 0x11389, kOther},
                              {0x1138b, 0x1138b, kOther},
                              {0x1138e, 0x1138e, kOther},
                              {0x11390, 0x113b5, kOther},
                              {0x113b7, 0x113b7, kOther},
                              {0x113b8, 0x113c0, kMark},
                              {0x113c2, 0x113c2, kMark},
                              {0x113c5, 0x113c5, kMark},
                              {0x113c7, 0x113ca, kMark},
                              {0x113cc, 0x113d0, kMark},
                              {0x113d1, 0x113d1, kOther},
                              {0x113d2, 0x113d2, kMark},
                              {0x113d3, 0x113d3, kOther},
                              {0x113d4, 0x113d5, kPunctuation},
                              {0x113d7, 0x113d8, kPunctuation},
                              {0x113e1, 0x113e2, kMark},
                              {0x116d0, 0x116e3, kNumber},
                              {0x11bc0, 0x11be0, kOther},
                              {0x11be1, 0x11be1, kPunctuation},
                              {0x11bf0, 0x11bf9, kNumber},
                              {0x11f5a, 0x11f5a, kMark},
                              {0x13460, 0x143fa, kOther},
                              {0x16100, 0x1611d, kOther},
                              {0x1611e, 0x1612f, kMark},
                              {0x16130, 0x16139, kNumber},
                              {0x16d40, 0x16d6c, kOther},
                              {0x16d6d, 0x16d6f, kPunctuation},
                              {0x16d70, 0x16d79, kNumber},
                              {0x18cff, 0x18cff, kOther},
                              {0x1cc00, 0x1ccef, kSymbol},
                              {0x1ccf0, 0x1ccf9, kNumber},
                              {0x1cd00, 0x1ceb3, kSymbol},
                              {0x1e5d0, 0x1e5ed, kOther},
                              {0x1e5ee, 0x1e5ef, kMark},
                              {0x1e5f0, 0x1e5f0, kOther},
                              {0x1e5f1, 0x1e5fa, kNumber},
                              {0x1e5ff, 0x1e5ff, kPunctuation},
                              {0x1f8b2, 0x1f8bb, kSymbol},
                              {0x1f8c0, 0x1f8c1, kSymbol},
                              {0x1fa89, 0x1fa89, kSymbol},
                              {0x1fa8f, 0x1fa8f, kSymbol},
                              {0x1fabe, 0x1fabe, kSymbol},
                              {0x1fac6, 0x1fac6, kSymbol},
                              {0x1fadc, 0x1fadc, kSymbol},
                              {0x1fadf, 0x1fadf, kSymbol},
                              {0x1fae9, 0x1fae9, kSymbol},
                              {0x1fbcb, 0x1fbef, kSymbol},
                              {0x2ebf0, 0x2ee5d, kOther}};

// DerivedAge after 9.0, with Canonical_Combining_Class or Decomposition_Mapping in 15.0.
constexpr Range kUnnormalized[] = {
    {0x7fd, 0x7fd, 0},     {0x898, 0x89f, 0},     {0x8ca, 0x8d3, 0},     {0x9fe, 0x9fe, 0},
    {0xc3c, 0xc3c, 0},     {0xd3b, 0xd3c, 0},     {0xeba, 0xeba, 0},     {0x1715, 0x1715, 0},
    {0x1abf, 0x1ace, 0},   {0x1df6, 0x1dfa, 0},   {0x32ff, 0x32ff, 0},   {0xa7f2, 0xa7f4, 0},
    {0xa82c, 0xa82c, 0},   {0xab69, 0xab69, 0},   {0x10781, 0x10785, 0}, {0x10787, 0x107b0, 0},
    {0x107b2, 0x107ba, 0}, {0x10d24, 0x10d27, 0}, {0x10eab, 0x10eac, 0}, {0x10efd, 0x10eff, 0},
    {0x10f46, 0x10f50, 0}, {0x10f82, 0x10f85, 0}, {0x11070, 0x11070, 0}, {0x1133b, 0x1133b, 0},
    {0x1145e, 0x1145e, 0}, {0x11839, 0x1183a, 0}, {0x11930, 0x11930, 0}, {0x11935, 0x11935, 0},
    {0x11938, 0x11938, 0}, {0x1193d, 0x1193e, 0}, {0x11943, 0x11943, 0}, {0x119e0, 0x119e0, 0},
    {0x11a34, 0x11a34, 0}, {0x11a47, 0x11a47, 0}, {0x11a99, 0x11a99, 0}, {0x11d42, 0x11d42, 0},
    {0x11d44, 0x11d45, 0}, {0x11d97, 0x11d97, 0}, {0x11f41, 0x11f42, 0}, {0x16ff0, 0x16ff1, 0},
    {0x1e030, 0x1e06d, 0}, {0x1e08f, 0x1e08f, 0}, {0x1e130, 0x1e136, 0}, {0x1e2ae, 0x1e2ae, 0},
    {0x1e2ec, 0x1e2ef, 0}, {0x1e4ec, 0x1e4ef, 0}, {0x1f16c, 0x1f16c, 0}, {0x1fbf0, 0x1fbf9, 0}};

template <size_t n>
const Range* find(const Range (&ranges)[n], char32_t c) {
    const Range* range = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                          [](const Range& r, char32_t v) { return r.last < v; });
    return range != std::end(ranges) && range->first <= c ? range : nullptr;
}

}  // namespace

CharClass class_since_15_1(char32_t c) {
    const Range* range = find(kSince15, c);
    return range ? range->classes : CharClass{0};
}

bool normalization_ignores(char32_t c) { return find(kUnnormalized, c) != nullptr; }

}  // namespace conclave::engine
