#include "runtime/engine/conformance/codec_laws.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "runtime/engine/conformance/indexer_laws.h"
#include "runtime/engine/conformance/random.h"
#include "sharding/shard_plan.h"

namespace conclave::engine::conformance {
namespace {

constexpr std::byte kPoison{0xa5}, kOther{0x5a};  // no bit in common
/// Numbers of a matrix that are decoded at once; larger ones are looked at through a window.
constexpr int64_t kWindow = 1 << 18;

std::string cut_text(Interval n, Interval k) {
    return "rows " + n.to_string() + " columns " + k.to_string();
}

Verdict or_none(std::string fault) {
    return fault.empty() ? std::nullopt : std::optional(std::move(fault));
}

/// Decoding writes to its scratch alone.
Verdict written(const Staged& before, const Staged& after) {
    for (size_t i = 0; i < before.memory.size(); ++i) {
        const GuardedBytes &a = before.memory[i], &b = after.memory[i];
        if (const std::string beside = b.written_beside(); !beside.empty())
            return fmt::format("decode() {} of piece {}", beside, i);
        if (std::memcmp(a.data(), b.data(), a.size()) != 0)
            return fmt::format("decode() wrote into what is staged of piece {}", i);
    }
    return std::nullopt;
}

/// Whether no other piece is of the same tensor.
bool alone(const quant::StoredMatrix& m, size_t piece) {
    return std::count_if(m.pieces.begin(), m.pieces.end(), [&](const quant::StoredPiece& p) {
               return p.tensor == m.pieces[piece].tensor;
           }) == 1;
}

Verdict needs(const Subject& s, const CodecCase& c) {
    const Interval all{0, s.source.k};
    for (size_t i = 0; i < s.matrix.pieces.size(); ++i) {
        const quant::StoredRect part = needs_of(s, i, c.rows, c.cols),
                                whole = needs_of(s, i, c.window, all);
        const auto within = [](Interval a, Interval b) {
            return a.empty() || (a.begin >= b.begin && a.end <= b.end);
        };
        // Two pieces of one tensor may share it otherwise where more is decoded.
        if (alone(s.matrix, i) &&
            (!within(part.rows, whole.rows) || !within(part.cols, whole.cols)))
            return fmt::format(
                "needs() asks for {} of piece {}, but only for {} where more, {}, is decoded",
                rect_text(part), s.matrix.pieces[i].tensor, rect_text(whole),
                cut_text(c.window, all));
    }
    // What was not asked for differs in every bit.
    const Staged a = stage(s, c.rows, c.cols, kPoison, 3), b = stage(s, c.rows, c.cols, kOther, 0),
                 untouched = stage(s, c.rows, c.cols, kPoison, 3);
    const Decoded one = decode(s, c.rows, c.cols, a, kPoison),
                  two = decode(s, c.rows, c.cols, b, kOther);
    if (auto v = written(untouched, a)) return v;
    const std::string unlike = difference(s, one, two, "once", "then");
    if (unlike.empty()) return std::nullopt;
    return "decode() depends on bytes that needs() did not ask for, or on what scratch holds: " +
           unlike;
}

/// Codes that fit their bits, factors that are numbers.
Verdict sane(const Subject& s, const Decoded& d) {
    const quant::Encoding& e = s.matrix.encoding;
    const int bits = quant::is_integer(e.code) && e.bits > 0 ? e.bits : quant::code_bits(e.code);
    for (size_t i = 0; i < d.codes.size(); ++i) {
        const int64_t row = d.n.begin + static_cast<int64_t>(i) / d.k.size(),
                      col = d.k.begin + static_cast<int64_t>(i) % d.k.size();
        if (d.codes[i] >> bits)
            return fmt::format("row {}, column {}: expected a code of {} bits, found {}", row, col,
                               bits, d.codes[i]);
        if (!std::isfinite(d.scales[i]) || !std::isfinite(d.zeros[i]))
            return fmt::format("row {}, column {}: scale {} and zero {} are not both finite", row,
                               col, d.scales[i], d.zeros[i]);
    }
    return std::nullopt;
}

Verdict round_trip(const Subject& s, const CodecCase& c) {
    const Interval k{0, s.source.k};
    const Decoded d = decode(s, c.window, k);
    if (auto v = sane(s, d)) return v;
    if (s.weights.empty()) {  // a checkpoint's: at least always the same
        const Decoded again = decode(s, c.window, k, stage(s, c.window, k, kOther, 5), kOther);
        return or_none(difference(s, d, again, "once", "then"));
    }
    Decoded want;
    want.n = {0, s.source.n}, want.k = k;
    want.values = s.weights;
    if (quant::is_integer(s.matrix.encoding.code))  // a code at its zero point is +0
        for (float& v : want.values) v += 0.0f;
    return or_none(difference(s, d, want, "decoded", "expected by the sample"));
}

Verdict interval(const Subject& s, const CodecCase& c) {
    return or_none(difference(s, decode(s, c.rows, c.cols), decode(s, c.window, {0, s.source.k}),
                              "decoded from its own bytes", "decoded with all columns"));
}

Verdict rows(const Subject& s, const CodecCase& c) {
    const Staged staged = stage(s, c.rows, c.cols, kPoison, 1);
    const Decoded all = decode(s, c.rows, c.cols, staged, kPoison);
    Random random(c.seed);
    for (int64_t r = c.rows.begin; r < c.rows.end;) {
        const Interval part{r, std::min(c.rows.end, r + random.in(1, 9))};
        const std::string unlike = difference(s, decode(s, part, c.cols, staged, kOther), all,
                                              "decoded", "decoded with all rows");
        if (!unlike.empty())
            return "rows " + part.to_string() + " of what is staged, alone: " + unlike;
        r = part.end;
    }
    return std::nullopt;
}

/// As ShardPlan cuts it: by rows, and by columns.
Verdict ranks(const Subject& s, const CodecCase& c) {
    const int64_t n = s.source.n, k = s.source.k;
    const Decoded all = decode(s, c.window, {0, k});
    for (int rank = 0; rank < c.ranks; ++rank) {
        const Interval share = split(n, sharding::kRowGranule, c.ranks, rank);
        const Interval mine{std::max(share.begin, c.window.begin),
                            std::min(share.end, c.window.end)};
        const Interval cols = split(k, sharding::kColumnGranule, c.ranks, rank);
        for (const auto& [part, columns] :
             {std::pair{mine, Interval{0, k}}, std::pair{c.window, cols}}) {
            if (part.empty() || columns.empty()) continue;
            const std::string unlike = difference(s, decode(s, part, columns), all, "decoded there",
                                                  "decoded by one rank");
            if (!unlike.empty())
                return fmt::format("rank {} of {}, {}: {}", rank, c.ranks, cut_text(part, columns),
                                   unlike);
        }
    }
    return std::nullopt;
}

/// The indexer that a piece names.
class ByName final : public sharding::ShardIndexer {
  public:
    void look_in(const sharding::IndexerRegistry& indexers) { indexers_ = &indexers; }
    sharding::OffsetTable index(const quant::StoredPiece& piece,
                                const quant::StoredRect& rect) const override {
        const auto found = indexers_->find(piece.indexer);
        if (found == indexers_->end()) throw Found{"there is no indexer " + piece.indexer};
        return found->second->index(piece, rect);
    }

  private:
    const sharding::IndexerRegistry* indexers_ = nullptr;
};

CodecCase make_case(const Subjects& subjects, const Trial& trial, int64_t index) {
    Random random(trial.seed ^ static_cast<uint64_t>(index) * 0x5851f42d4c957f2du);
    CodecCase c;
    c.seed = random.bits() >> 32;
    c.ranks = 1 + static_cast<int>(index % 8);
    if (subjects.sample) {
        const int64_t part = index + 1, of = std::max<int64_t>(trial.cases, 1);
        c.n = random.in(1, 1 + 47 * part / of);
        c.k = random.in(1, 1 + (index % 8 == 7 ? 700 : 200) * part / of);
        c.window = {0, c.n};
    } else {
        c.index = index % static_cast<int64_t>(subjects.fixed.size());
        const Subject& s = *subjects.fixed[static_cast<size_t>(c.index)];
        c.n = s.source.n, c.k = s.source.k;
        const int64_t most = std::max<int64_t>(1, kWindow / std::max<int64_t>(1, c.k));
        const int64_t first = c.n <= most ? 0 : random.in(0, c.n - most);
        c.window = {first, std::min(c.n, first + most)};
    }
    const Interval rows = random_part(c.window.size(), random);
    c.rows = {c.window.begin + rows.begin, c.window.begin + rows.end};
    c.cols = random_part(c.k, random);
    return c;
}

std::vector<CodecCase> simpler(const Subjects& subjects, const CodecCase& c) {
    std::vector<CodecCase> out;
    if (subjects.sample) {
        for (int64_t n : smaller_than(c.n, c.rows.end)) {
            out.push_back(c);
            out.back().n = n;
            out.back().window = {0, n};
        }
        for (int64_t k : smaller_than(c.k, c.cols.end)) out.push_back(c), out.back().k = k;
    }
    for (Interval i : simpler_intervals(c.rows)) out.push_back(c), out.back().rows = i;
    for (Interval i : simpler_intervals(c.cols)) out.push_back(c), out.back().cols = i;
    if (!subjects.sample && c.window != c.rows) out.push_back(c), out.back().window = c.rows;
    for (int64_t r : smaller_than(c.ranks, 1))
        out.push_back(c), out.back().ranks = static_cast<int>(r);
    return out;
}

std::string case_text(const CodecLaw& law, const Subjects& subjects, const CodecCase& c) {
    std::string s = subjects.sample ? fmt::format("sample({}, {}, {})", c.n, c.k, c.seed)
                                    : subjects.fixed[static_cast<size_t>(c.index)]->name;
    const std::string name = law.name;
    if (name == "ranks") return s + fmt::format(" over {} ranks", c.ranks);
    if (name == "codec.round_trip")
        return subjects.sample ? s : s + ", rows " + c.window.to_string();
    return s + ", " + cut_text(c.rows, c.cols);
}

}  // namespace

std::shared_ptr<const Subject> subject_of(const Subjects& subjects, int64_t index, int64_t n,
                                          int64_t k, uint64_t seed) {
    if (!subjects.sample) return subjects.fixed[static_cast<size_t>(index)];
    return subjects.sample(n, k, seed);
}

const std::vector<CodecLaw>& codec_laws() {
    static const std::vector<CodecLaw> laws = {{"codec.needs", needs, true},
                                               {"codec.round_trip", round_trip, false},
                                               {"codec.interval", interval, true},
                                               {"codec.rows", rows, false},
                                               {"ranks", ranks, false}};
    return laws;
}

Outcome search_codec(const CodecLaw& law, const Subjects& subjects, const Trial& trial) {
    Search<CodecCase> s;
    s.law = law.name;
    s.make = [&](int64_t index) { return make_case(subjects, trial, index); };
    s.check = [&](const CodecCase& c) {
        const auto subject = subject_of(subjects, c.index, c.n, c.k, c.seed);
        CodecCase one = c;
        // A sample may be larger than it was asked to be.
        if (subjects.sample) one.window = {0, subject->source.n};
        return law.check(*subject, one);
    };
    s.text = [&](const CodecCase& c) { return case_text(law, subjects, c); };
    s.simpler = [&](const CodecCase& c) { return simpler(subjects, c); };
    return search(s, trial);
}

Outcome search_indexed(size_t law, const Subjects& subjects, const Trial& trial) {
    ByName indexer;
    const auto make = [&](int64_t i) {
        const CodecCase c = make_case(subjects, trial, i);
        const auto s = subject_of(subjects, c.index, c.n, c.k, c.seed);
        Random random(c.seed + 1);
        std::vector<size_t> indexed;
        for (size_t p = 0; p < s->matrix.pieces.size(); ++p)
            if (!s->matrix.pieces[p].indexer.empty()) indexed.push_back(p);
        if (indexed.empty()) throw Skip{};
        const size_t p =
            indexed[static_cast<size_t>(random.in(0, static_cast<int64_t>(indexed.size()) - 1))];
        IndexedCase out;
        out.piece = s->matrix.pieces[p];
        out.bytes = s->tensors->bytes(out.piece.tensor);
        out.random = false;
        indexer.look_in(*s->indexers);
        out.whole = {{0, out.piece.rows}, {0, out.piece.cols}};
        out.part = needs_of(*s, p, c.rows, c.cols);
        if (i % 2 || out.part.rows.empty() || out.part.cols.empty())
            out.part = {random_part(out.piece.rows, random), random_part(out.piece.cols, random)};
        return out;
    };
    return search_indexer(indexer_laws()[law], indexer, make, trial);
}

}  // namespace conclave::engine::conformance
