#include <bitsandbytes/config.h>
#include <bitsandbytes/sample.h>

#include <cstring>
#include <random>

namespace bitsandbytes {

using namespace conclave;
using namespace conclave::quant;

namespace {

class Writer {
  public:
    Writer(int64_t n, int64_t k, uint64_t seed) : random_(seed * 0x9e3779b97f4a7c15u + 1) {
        out.source.stem = "layer";
        out.source.n = out.source.stored_n = n;
        out.source.k = k;
        out.config = Json{{"quant_method", "bitsandbytes"}, {"llm_int8_threshold", 6.0}};
    }

    template <class T>
    void tensor(const std::string& suffix, const char* dtype, std::vector<int64_t> shape,
                const std::vector<T>& values) {
        StoredSample::Tensor t{"layer." + suffix, {dtype, std::move(shape)}, {}};
        t.bytes.resize(values.size() * sizeof(T));
        std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
        out.tensors.push_back(std::move(t));
    }
    std::vector<uint8_t> bytes(int64_t count) {
        std::vector<uint8_t> v(static_cast<size_t>(count));
        for (uint8_t& b : v) b = static_cast<uint8_t>(random_() >> 32);
        return v;
    }
    /// Within [low, low + 1).
    std::vector<float> floats(int64_t count, float low) {
        std::vector<float> v(static_cast<size_t>(count));
        for (float& f : v) f = low + static_cast<float>(random_() >> 40) * 0x1p-24f;
        return v;
    }

    StoredSample out;

  private:
    std::mt19937_64 random_;
};

StoredSample int8_sample(int64_t n, int64_t k, uint64_t seed) {
    Writer w(n, k, seed);
    const auto codes = w.bytes(n * k);
    const auto rows = w.floats(n, 0.25f);
    w.tensor("weight", "I8", {n, k}, codes);
    w.tensor("SCB", "F32", {n}, rows);
    w.tensor("weight_format", "U8", {}, std::vector<uint8_t>{0});
    for (int64_t i = 0; i < n * k; ++i) {
        const auto code = static_cast<float>(static_cast<int8_t>(codes[static_cast<size_t>(i)]));
        const float scaled = code * rows[static_cast<size_t>(i / k)];
        w.out.weights.push_back(scaled * (1.0f / 127) + 0.0f);  // a code of 0 is +0
    }
    return std::move(w.out);
}

StoredSample flat_sample(int64_t n, int64_t k, uint64_t seed, const std::string& kind,
                         int64_t block, bool nested) {
    Writer w(n, k, seed);
    const int64_t elements = n * k, blocks = ceil_div(elements, block);
    const auto codes = w.bytes(ceil_div(elements, 2));
    const auto& levels = standard_levels(kind);
    const std::string state = "weight.quant_state.bitsandbytes__" + kind;
    w.tensor("weight", "U8", {ceil_div(elements, 2), 1}, codes);
    w.tensor("weight.quant_map", "F32", {16}, std::vector<float>(levels.begin(), levels.end()));
    Json json = {
        {"quant_type", kind}, {"blocksize", block}, {"dtype", "bfloat16"}, {"shape", {n, k}}};
    std::vector<float> absmax = w.floats(blocks, 0.125f);
    if (nested) {
        constexpr int64_t kOuter = 256;
        const float offset = 0.3125f;
        const auto bytes = w.bytes(blocks);
        const auto map = w.floats(256, -0.5f), outer = w.floats(ceil_div(blocks, kOuter), 0);
        w.tensor("weight.absmax", "U8", {blocks}, bytes);
        w.tensor("weight.nested_absmax", "F32", {ceil_div(blocks, kOuter)}, outer);
        w.tensor("weight.nested_quant_map", "F32", {256}, map);
        json["nested_blocksize"] = kOuter;
        json["nested_dtype"] = "float32";
        json["nested_offset"] = offset;
        for (size_t b = 0; b < absmax.size(); ++b) {
            const float product = map[bytes[b]] * outer[b / kOuter];
            absmax[b] = product + offset;
        }
    } else {
        w.tensor("weight.absmax", "F32", {blocks}, absmax);
    }
    const std::string text = json.dump();
    w.tensor(state, "U8", {static_cast<int64_t>(text.size())},
             std::vector<char>(text.begin(), text.end()));
    for (int64_t i = 0; i < elements; ++i) {
        const uint8_t two = codes[static_cast<size_t>(i / 2)];
        w.out.weights.push_back(levels[i % 2 ? two & 15 : two >> 4] *
                                absmax[static_cast<size_t>(i / block)]);
    }
    return std::move(w.out);
}

}  // namespace

StoredSample sample(int64_t n, int64_t k, uint64_t seed) {
    switch (seed % 4) {
        case 0:
            return flat_sample(n, k, seed, "nf4", 64, false);
        case 1:
            return flat_sample(n, k, seed, "nf4", 64, true);
        case 2:
            return flat_sample(n, k, seed, "fp4", 32 << (seed / 4 % 8), seed / 4 % 3 == 0);
        default:
            return int8_sample(n, k, seed);
    }
}

}  // namespace bitsandbytes
