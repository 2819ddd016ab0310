// Tensors in memory, as a checkpoint would show them, and matrices decoded from them the way the
// loader does it: rows staged together, decoded a few at a time.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "quant/codec.h"
#include "runtime/base/error.h"
#include "tests/quant/formats/staging.h"

namespace conclave::quant::test {

struct MemoryTensor {
    TensorHeader header;
    std::vector<std::byte> bytes;
};

template <class T>
MemoryTensor tensor(const std::string& dtype, std::vector<int64_t> shape,
                    const std::vector<T>& values) {
    MemoryTensor t{{dtype, std::move(shape)}, std::vector<std::byte>(values.size() * sizeof(T))};
    if (!values.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
    return t;
}

class MemoryTensors final : public TensorLookup {
  public:
    std::map<std::string, MemoryTensor> all;
    std::map<std::string, std::string> texts;  ///< __metadata__

    std::optional<std::string> metadata(const std::string& key) const override {
        const auto it = texts.find(key);
        return it == texts.end() ? std::nullopt : std::optional(it->second);
    }
    std::optional<TensorHeader> header(const std::string& name) const override {
        const auto it = all.find(name);
        return it == all.end() ? std::nullopt : std::optional(it->second.header);
    }
    std::vector<std::byte> read(const std::string& name, uint64_t max_bytes) const override {
        const auto it = all.find(name);
        if (it == all.end()) throw Error(ErrorCode::kBadContent, "tensor is missing").tensor(name);
        if (it->second.bytes.size() > max_bytes)
            throw Error(ErrorCode::kBadContent, "tensor is too large").tensor(name);
        return it->second.bytes;
    }

    static MemoryTensors from_file(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        const std::string file{std::istreambuf_iterator<char>(in), {}};
        uint64_t length = 0;
        std::memcpy(&length, file.data(), 8);
        const auto header = nlohmann::json::parse(file.substr(8, length));
        MemoryTensors tensors;
        for (const auto& [name, t] : header.items()) {
            if (name == "__metadata__") {
                tensors.texts = t.get<std::map<std::string, std::string>>();
                continue;
            }
            const uint64_t begin = t["data_offsets"][0], end = t["data_offsets"][1];
            MemoryTensor& one = tensors.all[name];
            one.header = {t["dtype"], t["shape"].get<std::vector<int64_t>>()};
            one.bytes.resize(end - begin);
            std::memcpy(one.bytes.data(), file.data() + 8 + length + begin, end - begin);
        }
        return tensors;
    }

    /// All of a checkpoint in whatever files.
    static MemoryTensors from_folder(const std::filesystem::path& folder) {
        MemoryTensors tensors;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const std::string name = entry.path().filename().string();
            if (!name.starts_with("model") || !name.ends_with(".safetensors")) continue;
            MemoryTensors one = from_file(entry.path().string());
            tensors.all.merge(one.all);
            tensors.texts.merge(one.texts);
        }
        return tensors;
    }

    /// What decode_cut() reads of a matrix. Its pieces must be views of the tensors' bytes.
    ReadRect reader(const StoredMatrix& m) const {
        for (const StoredPiece& p : m.pieces) {
            const auto it = all.find(p.tensor);
            EXPECT_TRUE(it != all.end()) << p.tensor;
            if (it == all.end()) continue;
            EXPECT_EQ(static_cast<uint64_t>(p.rows * p.cols * p.element_bytes),
                      it->second.bytes.size())
                << p.tensor;
        }
        return [this, &m](size_t piece, const StoredRect& rect, std::byte* out, int64_t row_bytes) {
            const StoredPiece& p = m.pieces[piece];
            const std::vector<std::byte>& from = all.at(p.tensor).bytes;
            if (rect.cols.empty()) return;
            for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
                std::memcpy(out + (r - rect.rows.begin) * row_bytes,
                            from.data() + (r * p.cols + rect.cols.begin) * p.element_bytes,
                            static_cast<size_t>(rect.cols.size() * p.element_bytes));
        };
    }
};

/// The numbers of rows n x columns k, [n, k]: all that rows n need is staged at once and decoded a
/// few rows at a time, like the loader's tasks.
inline std::vector<float> decode_rows(const StoredMatrix& m, Interval n, Interval k,
                                      const ReadRect& read, std::mt19937& rng) {
    std::vector<std::vector<std::byte>> buffers;
    std::vector<StagedRect> staged;
    for (size_t i = 0; i < m.pieces.size(); ++i) {
        const StoredRect rect = m.codec->needs(m, i, n, k);
        const int64_t width = std::max<int64_t>(rect.cols.size(), 0) * m.pieces[i].element_bytes;
        buffers.emplace_back(static_cast<size_t>(rect.rows.size() * width), std::byte{0x5a});
        read(i, rect, buffers.back().data(), width);
        staged.push_back({rect, buffers.back().data(), width, {}});
    }
    std::vector<float> values;
    for (int64_t r = n.begin; r < n.end;) {
        const Interval part{r, std::min(n.end, r + 1 + static_cast<int64_t>(rng() % 40))};
        std::vector<std::byte> room(m.codec->scratch_bytes(m, part, k) + 64, std::byte{0xa5});
        std::byte* scratch =
            room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
        const CodeTile tile = m.codec->decode(m, part, k, staged, scratch);
        append_values(m, k, tile, values);
        r = part.end;
    }
    return values;
}

/// A random part of [0, size), never empty; often all of it.
inline Interval random_cut(int64_t size, std::mt19937& rng) {
    if (rng() % 4 == 0) return {0, size};
    const auto at = [&] { return static_cast<int64_t>(rng() % static_cast<uint64_t>(size)); };
    const int64_t a = at(), b = at();
    return {std::min(a, b), std::max(a, b) + 1};
}

/// Cuts of a matrix agree with `whole` (its [n, k] numbers), staged and decoded either way.
inline void expect_cuts(const StoredMatrix& m, const std::vector<float>& whole,
                        const ReadRect& read, int cuts, std::mt19937& rng) {
    for (int i = 0; i < cuts; ++i) {
        const Interval n = random_cut(m.source.n, rng), k = random_cut(m.source.k, rng);
        const Decoded cut = decode_cut(m, n, k, read, rng);
        const std::vector<float> rows = decode_rows(m, n, k, read, rng);
        for (int64_t r = 0; r < n.size(); ++r)
            for (int64_t c = 0; c < k.size(); ++c) {
                const float want =
                    whole[static_cast<size_t>((n.begin + r) * m.source.k + k.begin + c)];
                const int64_t at = r * k.size() + c;
                ASSERT_EQ(std::memcmp(&want, &rows[static_cast<size_t>(at)], 4), 0)
                    << m.pieces[0].tensor << " rows " << n.to_string() << " columns "
                    << k.to_string() << ": [" << r << ", " << c << "] " << want << " "
                    << rows[static_cast<size_t>(at)];
                const float again = cut.value(at);
                ASSERT_EQ(std::memcmp(&want, &again, 4), 0) << m.pieces[0].tensor;
            }
    }
}

/// A matrix named `stem`, as a model would ask for it.
inline MatrixSource matrix_source(const std::string& stem, int64_t n, int64_t k) {
    MatrixSource s;
    s.stem = stem;
    s.n = s.stored_n = n;
    s.k = k;
    return s;
}

}  // namespace conclave::quant::test
