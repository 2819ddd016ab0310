// A checkpoint with fused and stacked matrices, quantized here by plain code, and the same numbers
// as a plain checkpoint with nothing fused.
#pragma once
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/support/run_model.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace bitsandbytes::test {

using conclave::testing::raw_bytes;
using conclave::testing::TensorToWrite;

struct Matrix {
    std::vector<int64_t> shape;
    std::vector<float> values;
};

/// How a matrix is to be quantized: 4 bit, or int8 where `block` is 0.
struct Kind {
    std::string name;  ///< "nf4", "fp4"
    int64_t block = 64;
    bool nested = false;
};

class MadeCheckpoint {
  public:
    /// From a plain model of F16 tensors with 3-D experts.
    explicit MadeCheckpoint(const std::string& model)
        : tensors_(conclave::quant::test::MemoryTensors::from_folder(model)) {
        for (int64_t layer = 0; has(prefix(layer) + "self_attn.q_proj.weight"); ++layer) {
            const std::string p = prefix(layer), attention = p + "self_attn.", mlp = p + "mlp.";
            fuse(attention + "qkv_proj",
                 {attention + "q_proj", attention + "k_proj", attention + "v_proj"},
                 {layer % 2 ? "nf4" : "fp4", 128, layer == 2});
            fuse(attention + "o_proj", {attention + "o_proj"}, {"", layer == 0 ? 0 : 64, false});
            if (has(mlp + "gate_proj.weight")) {
                fuse(mlp + "gate_up_proj", {mlp + "gate_proj", mlp + "up_proj"}, {"nf4", 4096});
                fuse(mlp + "down_proj", {mlp + "down_proj"}, {"nf4", 64, true});
                continue;
            }
            experts(mlp + "experts.", "gate_up_proj", {"gate_proj", "up_proj"},
                    {"nf4", 64, layer == 0});
            experts(mlp + "experts.", "down_proj", {"down_proj"}, {"fp4", 32, layer != 0});
        }
        for (const auto& [name, t] : tensors_.all) {
            const auto* bytes = reinterpret_cast<const char*>(t.bytes.data());
            const TensorToWrite as_it_is{
                name, t.header.dtype, t.header.shape, {bytes, t.bytes.size()}};
            quantized_.push_back(as_it_is);
            plain_.push_back(as_it_is);
        }
        write(model, "quantized", quantized_, true);
        write(model, "plain", plain_, false);
    }

    std::string quantized() const { return dir_ / "quantized"; }
    std::string plain() const { return dir_ / "plain"; }

  private:
    static std::string prefix(int64_t layer) {
        return "model.layers." + std::to_string(layer) + ".";
    }
    bool has(const std::string& name) const { return tensors_.all.count(name) > 0; }

    Matrix take(const std::string& name) {
        const auto it = tensors_.all.find(name);
        Matrix m{it->second.header.shape, {}};
        for (size_t i = 0; i + 1 < it->second.bytes.size(); i += 2) {
            uint16_t half;
            std::memcpy(&half, it->second.bytes.data() + i, 2);
            m.values.push_back(conclave::f16_to_f32(half));
        }
        tensors_.all.erase(it);
        return m;
    }

    void fuse(const std::string& fused, const std::vector<std::string>& parts, const Kind& kind) {
        Matrix all;
        std::vector<int64_t> rows;
        for (const std::string& part : parts) {
            const Matrix m = take(part + ".weight");
            rows.push_back(m.shape[0]);
            all.shape = m.shape;
            all.values.insert(all.values.end(), m.values.begin(), m.values.end());
        }
        all.shape[0] = static_cast<int64_t>(all.values.size()) / all.shape[1];
        if (kind.block == 0)
            int8(fused, all);
        else
            four_bits(fused + ".weight", all, kind);
        int64_t row = 0;
        for (size_t i = 0; i < parts.size(); row += rows[i++])
            put_plain(parts[i] + ".weight", all, row, rows[i]);
    }

    /// A 3-D parameter whose rows are those of `parts`, one after the other.
    void experts(const std::string& prefix, const std::string& name,
                 const std::vector<std::string>& parts, const Kind& kind) {
        Matrix all = take(prefix + name);
        four_bits(prefix + name, all, kind);
        const int64_t count = all.shape[0], rows = all.shape[1];
        const int64_t each = rows / static_cast<int64_t>(parts.size());
        all.shape = {count * rows, all.shape[2]};
        for (int64_t e = 0; e < count; ++e)
            for (size_t i = 0; i < parts.size(); ++i)
                put_plain(prefix + std::to_string(e) + "." + parts[i] + ".weight", all,
                          e * rows + static_cast<int64_t>(i) * each, each);
    }

    void put_plain(const std::string& name, const Matrix& m, int64_t row, int64_t rows) {
        const int64_t k = m.shape.back();
        plain_.push_back({name,
                          "F32",
                          {rows, k},
                          raw_bytes(std::vector<float>(m.values.begin() + row * k,
                                                       m.values.begin() + (row + rows) * k))});
    }

    void put(const std::string& name, const char* dtype, int64_t count, std::string data) {
        quantized_.push_back({name, dtype, {count}, std::move(data)});
    }

    /// Rounds m.values in place.
    void int8(const std::string& stem, Matrix& m) {
        const int64_t k = m.shape[1];
        std::vector<int8_t> codes;
        std::vector<float> rows;
        for (int64_t r = 0; r < m.shape[0]; ++r) {
            float* row = m.values.data() + r * k;
            float most = 0;
            for (int64_t c = 0; c < k; ++c) most = std::max(most, std::fabs(row[c]));
            rows.push_back(most);
            for (int64_t c = 0; c < k; ++c) {
                codes.push_back(static_cast<int8_t>(std::nearbyint(row[c] * (127 / most))));
                const float product = static_cast<float>(codes.back()) * most;
                row[c] = product * (1.0f / 127);
            }
        }
        quantized_.push_back({stem + ".weight", "I8", m.shape, raw_bytes(codes)});
        put(stem + ".SCB", "F32", m.shape[0], raw_bytes(rows));
    }

    static size_t nearest(const std::vector<float>& levels, float v) {
        size_t best = 0;
        for (size_t i = 1; i < levels.size(); ++i)
            if (std::fabs(levels[i] - v) < std::fabs(levels[best] - v)) best = i;
        return best;
    }

    /// Rounds m.values in place.
    void four_bits(const std::string& name, Matrix& m, const Kind& kind) {
        const bool nf4 = kind.name != "fp4";
        std::vector<float> levels;  // not the usual ones: the file's are what counts
        for (int i = 0; i < 16; ++i)
            levels.push_back(nf4 ? std::sin(static_cast<float>(i - 7) / 8 * 1.5f)
                                 : std::ldexp(i < 8 ? 1.0f : -1.0f, -(i % 8)));
        const auto count = static_cast<int64_t>(m.values.size());
        std::vector<float> absmax;
        for (int64_t at = 0; at < count; at += kind.block) {
            float most = 0;
            for (int64_t i = at; i < std::min(count, at + kind.block); ++i)
                most = std::max(most, std::fabs(m.values[static_cast<size_t>(i)]));
            absmax.push_back(most);
        }
        nlohmann::json state = {{"quant_type", nf4 ? "nf4" : "fp4"},
                                {"blocksize", kind.block},
                                {"dtype", "float16"},
                                {"shape", m.shape}};
        const auto blocks = static_cast<int64_t>(absmax.size());
        if (kind.nested)
            nest(name, absmax, state);
        else
            put(name + ".absmax", "F32", blocks, raw_bytes(absmax));
        std::vector<uint8_t> bytes(static_cast<size_t>((count + 1) / 2));
        for (size_t i = 0; i < m.values.size(); ++i) {
            const float scale = absmax[i / static_cast<size_t>(kind.block)];
            const size_t code = nearest(levels, m.values[i] / scale);
            bytes[i / 2] |= static_cast<uint8_t>(i % 2 ? code : code << 4);
            m.values[i] = levels[code] * scale;
        }
        quantized_.push_back(
            {name, "U8", {static_cast<int64_t>(bytes.size()), 1}, raw_bytes(bytes)});
        put(name + ".quant_map", "F32", 16, raw_bytes(levels));
        const std::string text = state.dump();
        put(name + ".quant_state.bitsandbytes__" + (nf4 ? "nf4" : "fp4"), "U8",
            static_cast<int64_t>(text.size()), text);
    }

    void nest(const std::string& name, std::vector<float>& absmax, nlohmann::json& state) {
        constexpr size_t kOuter = 256;
        float offset = 0;
        for (const float a : absmax) offset += a / static_cast<float>(absmax.size());
        std::vector<float> map, outer;
        for (int i = 0; i < 256; ++i) map.push_back(static_cast<float>(i - 128) / 130);
        std::vector<uint8_t> codes;
        for (size_t b = 0; b < absmax.size(); ++b) {
            if (b % kOuter == 0) {
                outer.push_back(0);
                for (size_t i = b; i < std::min(absmax.size(), b + kOuter); ++i)
                    outer.back() = std::max(outer.back(), std::fabs(absmax[i] - offset));
            }
            codes.push_back(
                static_cast<uint8_t>(nearest(map, (absmax[b] - offset) / outer.back())));
            const float product = map[codes.back()] * outer.back();
            absmax[b] = product + offset;
        }
        put(name + ".absmax", "U8", static_cast<int64_t>(codes.size()), raw_bytes(codes));
        put(name + ".nested_absmax", "F32", static_cast<int64_t>(outer.size()), raw_bytes(outer));
        put(name + ".nested_quant_map", "F32", 256, raw_bytes(map));
        state["nested_blocksize"] = kOuter;
        state["nested_dtype"] = "float32";
        state["nested_offset"] = offset;
    }

    void write(const std::string& model, const std::string& name,
               const std::vector<TensorToWrite>& tensors, bool with_config) {
        std::filesystem::create_directory(dir_ / name);
        std::ifstream in(model + "/config.json");
        auto config = nlohmann::json::parse(in);
        // Of the days before quant_method.
        if (with_config) config["quantization_config"] = {{"load_in_4bit", true}};
        conclave::testing::write_file(dir_ / name + "/config.json", config.dump());
        conclave::testing::write_safetensors(dir_ / name + "/model.safetensors", tensors);
    }

    conclave::quant::test::MemoryTensors tensors_;
    std::vector<TensorToWrite> quantized_, plain_;
    conclave::testing::TempDir dir_;
};

}  // namespace bitsandbytes::test
