// Checkpoints from strangers: an error that names the tensor, or a matrix that decodes.
#include <gtest/gtest.h>

#include "tests/bitsandbytes/staged.h"

namespace bitsandbytes::test {
namespace {

const std::string kState = "layer.weight.quant_state.bitsandbytes__nf4";

void set_text(MemoryTensors& tensors, const std::string& name, const std::string& text) {
    MemoryTensor& t = tensors.all[name];
    t.header = {"U8", {static_cast<int64_t>(text.size())}};
    t.bytes.resize(text.size());
    std::memcpy(t.bytes.data(), text.data(), text.size());
}

std::string text_of(const MemoryTensors& tensors, const std::string& name) {
    const auto& bytes = tensors.all.at(name).bytes;
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The message of the refusal; empty: it was accepted.
std::string refusal(const MatrixSource& source, const MemoryTensors& tensors) {
    try {
        describe(source, tensors);
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported)
            << e.what();
        return e.what();
    }
    return "";
}

TEST(Hostile, StatesThatDoNotFitAreRefused) {
    const StoredSample s = sample(96, 200, 1);  // nested
    const Json good = Json::parse(text_of(tensors_of(s), kState));
    ASSERT_EQ(refusal(s.source, tensors_of(s)), "");
    const std::vector<std::pair<const char*, const char*>> cases = {
        {"blocksize", "0"},
        {"blocksize", "-64"},
        {"blocksize", "63"},
        {"blocksize", "96"},
        {"blocksize", "16"},
        {"blocksize", "8192"},
        {"blocksize", "128"},
        {"blocksize", "\"64\""},
        {"blocksize", "64.5"},
        {"blocksize", "1e300"},
        {"blocksize", "null"},
        {"blocksize", "18446744073709551615"},
        {"shape", "[96]"},
        {"shape", "[200, 96]"},
        {"shape", "[96, 200, 1]"},
        {"shape", "[1, 96, 200]"},
        {"shape", "[-96, -200]"},
        {"shape", "[96.0, 200]"},
        {"shape", "\"96x200\""},
        {"shape", "{}"},
        {"shape", "[[96], 200]"},
        {"shape", "[18446744073709551615, 200]"},
        {"shape", "null"},
        {"quant_type", "\"fp4\""},
        {"quant_type", "4"},
        {"quant_type", "\"\""},
        {"nested_blocksize", "0"},
        {"nested_blocksize", "100"},
        {"nested_blocksize", "64"},
        {"nested_blocksize", "4096"},
        {"nested_offset", "1e39"},
        {"nested_offset", "-1e300"},
        {"nested_offset", "\"0.1\""},
        {"nested_offset", "null"},
        {"nested_dtype", "\"bf16\""},
        {"nested_dtype", "32"}};
    for (const auto& [key, value] : cases) {
        MemoryTensors tensors = tensors_of(s);
        Json state = good;
        state[key] = Json::parse(value);
        set_text(tensors, kState, state.dump());
        const std::string what = refusal(s.source, tensors);
        // nested_blocksize 4096 happens to need as many nested_absmax, and 128 as many ...
        if (std::string(key) == "nested_blocksize" && what.empty() &&
            ceil_div(ceil_div(96 * 200, 64), state[key].get<int64_t>()) == 2)
            continue;
        EXPECT_NE(what.find("layer.weight"), std::string::npos) << key << " " << value << what;
    }
    for (const char* key :
         {"blocksize", "shape", "quant_type", "nested_blocksize", "nested_offset"}) {
        MemoryTensors tensors = tensors_of(s);
        Json state = good;
        state.erase(key);
        set_text(tensors, kState, state.dump());
        EXPECT_NE(refusal(s.source, tensors).find(kState), std::string::npos) << key;
    }
}

TEST(Hostile, TextsThatAreNoObjectsAreRefused) {
    const StoredSample s = sample(96, 200, 0);
    std::string deep = "{\"shape\":", many = "{\"shape\":[0";
    for (int i = 0; i < 20000; ++i) deep += '[', many += ",0";
    many += "]}";
    for (const std::string& text :
         {std::string(), std::string("{"), std::string("[]"), std::string("null"),
          std::string("\0\0\0", 3), std::string("{\"blocksize\":64,\"blocksize\":64}"), deep, many,
          std::string(70000, ' '), std::string("\xff\xfe{}"), std::string("{}{}")}) {
        MemoryTensors tensors = tensors_of(s);
        set_text(tensors, kState, text);
        EXPECT_NE(refusal(s.source, tensors).find(kState), std::string::npos) << text.substr(0, 40);
    }
}

TEST(Hostile, TextsWithChangedBytesNeverCrash) {
    std::mt19937 rng(5);
    const StoredSample s = sample(96, 200, 1);
    const std::string good = text_of(tensors_of(s), kState);
    int refused = 0;
    for (int round = 0; round < 4000; ++round) {
        std::string text = good;
        for (int i = static_cast<int>(rng() % 3); i >= 0; --i)
            text[rng() % text.size()] = static_cast<char>(rng());
        if (rng() % 8 == 0) text.resize(rng() % text.size());
        MemoryTensors tensors = tensors_of(s);
        set_text(tensors, kState, text);
        if (!refusal(s.source, tensors).empty()) {
            ++refused;
            continue;
        }
        const auto m = describe(s.source, tensors);
        decode(*m, tensors, {0, 96}, {0, 200}, rng);
    }
    EXPECT_GT(refused, 2000);
}

TEST(Hostile, TensorsOfAnotherShapeOrTypeAreRefused) {
    for (const uint64_t seed : {0, 1, 3})
        for (const auto& t : sample(96, 200, seed).tensors) {
            if (t.name == kState) continue;
            const StoredSample s = sample(96, 200, seed);
            const bool order = t.name == "layer.weight_format";
            std::vector<TensorHeader> headers = {{"F64", t.header.shape}, {"I64", t.header.shape}};
            if (!order) {
                headers.push_back({t.header.dtype, {}});
                headers.push_back({t.header.dtype, {3}});
                headers.push_back({t.header.dtype, {0}});
                auto more = t.header.shape;
                ++more[0];
                headers.push_back({t.header.dtype, more});
                more = t.header.shape, more.push_back(1);
                headers.push_back({t.header.dtype, more});
            }
            for (const TensorHeader& h : headers) {
                MemoryTensors tensors = tensors_of(s);
                tensors.all[t.name].header = h;
                const std::string what = refusal(s.source, tensors);
                EXPECT_NE(what.find(t.name), std::string::npos)
                    << t.name << " " << h.dtype << shape_text(h.shape) << ": " << what;
            }
            if (order || t.name == "layer.weight")
                continue;  // may be absent; then not there at all
            MemoryTensors tensors = tensors_of(s);
            tensors.all.erase(t.name);
            EXPECT_NE(refusal(s.source, tensors).find(t.name), std::string::npos) << t.name;
        }
}

TEST(Hostile, LevelsThatAreNoNumbersAreRefused) {
    for (const char* table : {"layer.weight.quant_map", "layer.weight.nested_quant_map"})
        for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u}) {
            const StoredSample s = sample(96, 200, 1);
            MemoryTensors tensors = tensors_of(s);
            std::memcpy(tensors.all[table].bytes.data() + 20, &bits, 4);
            EXPECT_NE(refusal(s.source, tensors).find(table), std::string::npos);
        }
}

TEST(Hostile, OrdersOfGpuKernelsAreRefused) {
    const StoredSample s = sample(9, 70, 3);
    for (int order = 1; order < 5; ++order) {
        MemoryTensors tensors = tensors_of(s);
        tensors.all["layer.weight_format"].bytes[0] = static_cast<std::byte>(order);
        const std::string what = refusal(s.source, tensors);
        EXPECT_NE(what.find("weight_format"), std::string::npos) << what;
        EXPECT_NE(what.find(std::to_string(order)), std::string::npos) << what;
    }
    MemoryTensors tensors = tensors_of(s);
    tensors.all.erase("layer.weight_format");
    EXPECT_EQ(refusal(s.source, tensors), "");
}

TEST(Hostile, AStateThatIsMissingIsNamed) {
    const StoredSample s = sample(96, 200, 0);
    MemoryTensors tensors = tensors_of(s);
    tensors.all.erase(kState);
    EXPECT_NE(refusal(s.source, tensors).find("quant_state"), std::string::npos);
}

TEST(Hostile, MatricesTooLargeToCountAreRefused) {
    const StoredSample s = sample(96, 200, 0);
    MatrixSource source = s.source;
    source.n = source.stored_n = int64_t{1} << 40;
    source.k = int64_t{1} << 40;
    EXPECT_NE(refusal(source, tensors_of(s)).find("layer.weight"), std::string::npos);
}

}  // namespace
}  // namespace bitsandbytes::test
