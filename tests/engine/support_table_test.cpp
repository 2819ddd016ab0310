// The table of README.md that says which formats are served on which CPUs is made here, from the
// registries, those of the plugins that come with Conclave too: each cell is a layer for which
// weights were created, or the reason why not. CONCLAVE_UPDATE_README=1 writes the table into
// README.md.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <set>

#include "moe/kernel_moe_method.h"
#include "quant/quantization_config.h"
#include "runtime/base/error.h"
#include "runtime/engine/plugins/loader.h"
#include "sharding/kernel_linear_method.h"

namespace conclave {
namespace {

using quant::Encoding;

class Nowhere final : public quant::WeightReservation {
  public:
    int nodes() const override { return 1; }
    double node_share(int) const override { return 1; }
    size_t reserve(int, size_t) override { return 0; }
};

CpuFeatures cpu(std::initializer_list<Isa> isas) {
    CpuFeatures f;
    for (Isa isa : isas) f.mask |= 1u << static_cast<int>(isa);
    return f;
}

quant::LinearDescriptor layer(const Encoding& e, int parts) {
    quant::LinearDescriptor d;
    for (int p = 0; p < parts; ++p) {
        quant::PartDescriptor part{"part", 96, {256, e, nullptr}, quant::kF32Input};
        if (quant::is_scaled(e.code)) {
            std::vector<int32_t> groups(256);
            for (int c = 0; c < 256; ++c) groups[c] = e.permuted ? (c * 7) % 4 : c / 64;
            part.layout.groups =
                std::make_shared<quant::Grouping>(quant::permuted_grouping(groups));
        }
        part.rule = quant::choose_activation_rule(e, nullptr, quant::Activations::kAuto);
        d.parts.push_back(part);
    }
    return d;
}

/// With the plugins that come with Conclave.
const engine::Extensions& extensions() {
    static const engine::Extensions all = [] {
        engine::Extensions e;
        for (const PluginReport& p :
             engine::load_plugins({std::string(CONCLAVE_BINARY_DIR) + "/plugins"}, e))
            EXPECT_EQ(p.refusal, "") << p.file;
        return e;
    }();
    return all;
}

/// Name of the kernel that serves the encoding in a dense layer and in experts; empty: none.
struct Served {
    std::string dense, experts;
};
Served serve(const Encoding& e, CpuFeatures features) {
    const quant::KernelRegistry& kernels = extensions().kernels;
    Nowhere memory;
    Served s;
    try {
        quant::LinearWeights dense{layer(e, 3), {}};
        sharding::KernelLinearMethod().create_weights(
            dense, {kernels, features, memory, "dense", nullptr});
        s.dense = dense.parts.at(2).kernel->name;
        quant::FusedMoeWeights experts;
        experts.w13.push_back({layer(e, 2), {}});
        experts.w2.push_back({layer(e, 1), {}});
        moe::KernelMoeMethod().create_weights(experts,
                                              {kernels, features, memory, "experts", nullptr});
        s.experts = experts.w2.at(0).parts.at(0).kernel->name;
    } catch (const Error&) {
    }
    return s;
}

/// "int2, int3, int4; asym, act-order".
std::string describe(const std::vector<Encoding>& encodings) {
    std::set<std::string> names, kinds;
    for (const Encoding& e : encodings) {
        names.insert(quant::is_integer(e.code) ? "int" + std::to_string(e.bits) : e.to_string());
        if (!quant::is_integer(e.code)) continue;
        const bool integers = e.zero == quant::FactorType::kU8 && !e.zero_added;
        kinds.insert(e.zero == quant::FactorType::kNone ? "symmetric"
                     : integers                         ? "asymmetric"
                                                        : "float zeros");
        if (e.permuted) kinds.insert("act-order");
    }
    std::string text;
    for (const std::string& n : names) text += (text.empty() ? "" : ", ") + n;
    const char* separator = ": ";
    for (const std::string& k : kinds) text += separator + k, separator = ", ";
    return text;
}

std::string table() {
    const CpuFeatures avx2 = cpu({Isa::kAvx2});
    const CpuFeatures avx512 = cpu({Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Bf16});
    std::string out =
        "| format (`quant_method`) | weights | dense | experts | AVX2 | AVX-512 |\n"
        "|---|---|---|---|---|---|\n";
    const auto& registry = extensions().formats;
    const auto built_in = quant::QuantizationRegistry::built_in();
    for (const std::string& name : registry.names()) {
        std::map<quant::CodeType, std::vector<Encoding>> by_code;
        for (const Encoding& e : registry.find(name)->encodings) by_code[e.code].push_back(e);
        EXPECT_FALSE(by_code.empty()) << name << " says no encodings";
        for (const auto& [code, encodings] : by_code) {
            Served narrow = serve(encodings[0], avx2), wide = serve(encodings[0], avx512);
            for (const Encoding& e : encodings) {  // one row: all of them must be served alike
                EXPECT_EQ(serve(e, avx2).dense, narrow.dense) << name << " " << e.to_string();
                EXPECT_EQ(serve(e, avx512).experts, wide.experts) << name << " " << e.to_string();
            }
            const auto yes = [](const Served& a, const Served& b, bool experts) {
                const bool one = !(experts ? a.experts : a.dense).empty();
                const bool two = !(experts ? b.experts : b.dense).empty();
                return one && two ? "yes" : one || two ? "partly" : "no";
            };
            out += "| " + name + (built_in.find(name) ? "" : " (plugin)") + " | " +
                   describe(encodings) + " | " + yes(narrow, wide, false) + " | " +
                   yes(narrow, wide, true) + " | " +
                   (narrow.dense.empty() ? "no" : "`" + narrow.dense + "`") + " | " +
                   (wide.dense.empty() ? "no" : "`" + wide.dense + "`") + " |\n";
        }
    }
    return out;
}

TEST(SupportTable, ReadmeSaysWhatTheRegistriesSay) {
    const std::string path = std::string(CONCLAVE_SOURCE_DIR) + "/README.md";
    std::ifstream in(path);
    std::string readme{std::istreambuf_iterator<char>(in), {}};
    const std::string begin = "<!-- formats: made by tests/engine/support_table_test.cpp -->\n",
                      end = "<!-- end of formats -->";
    const size_t from = readme.find(begin), to = readme.find(end);
    ASSERT_TRUE(from != std::string::npos && to != std::string::npos) << "README.md has no table";
    const std::string want = table();
    const std::string have = readme.substr(from + begin.size(), to - from - begin.size());
    if (std::getenv("CONCLAVE_UPDATE_README") && have != want) {
        std::ofstream(path) << readme.substr(0, from + begin.size()) + want + readme.substr(to);
        return;
    }
    EXPECT_EQ(have, want) << "run this test once with CONCLAVE_UPDATE_README=1";
}

}  // namespace
}  // namespace conclave
