// Matrices of GGUF's types under every kernel that this CPU has, with f32 and int8 input.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include "quant/activation.h"
#include "quant/formats/gguf_codec.h"
#include "quant/kernels/kernels.h"
#include "runtime/base/serial_executor.h"
#include "tests/quant/formats/gguf_reference.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/quant/multiply.h"

namespace conclave::quant {
namespace {

using test::MemoryTensors;

std::vector<const Kernel*> kernels_for(CodeType code, XType x) {
    std::vector<const Kernel*> kernels = test::family("grouped");
    std::erase_if(kernels, [&](const Kernel* k) {
        return k->code != code || k->x != x || !detect_cpu().has(k->isa);
    });
    return kernels;
}

/// Blocks whose factors are of the size that models have.
std::vector<uint8_t> modest_blocks(const BlockType& type, int64_t blocks, test::Random& random) {
    std::vector<uint8_t> bytes(static_cast<size_t>(blocks * type.bytes));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.in(0, 255));
    const std::string name = type.name;
    for (int64_t i = 0; i < blocks; ++i) {
        uint8_t* b = bytes.data() + i * type.bytes;
        const auto half = [&](int64_t at) { b[at + 1] = (b[at + 1] & 0x83) | 0x20; };
        if (name == "MXFP4")
            b[0] = static_cast<uint8_t>(random.in(118, 126));
        else if (name == "IQ1_M")
            b[55] = (b[55] & 0x8f) | 0x20;
        else if (name == "Q2_K")
            half(80), half(82);
        else if (name == "Q3_K" || name == "Q6_K" || name.starts_with("TQ"))
            half(type.bytes - 2);
        else if (name != "NVFP4")
            half(0);
        if (name == "Q4_1" || name == "Q5_1" || name == "Q4_K" || name == "Q5_K") half(2);
    }
    return bytes;
}

/// Columns [cut, k) of a matrix against the sum in double over its decoded weights.
void multiply_one(const BlockType& type, XType x_type, test::Random& random) {
    const int64_t n = 21, k = 3 * std::max<int64_t>(type.elements, 64), rows = 5;
    const Interval columns{random.in(0, 1) * random.in(1, k - 1), k};
    const auto bytes = modest_blocks(type, n * k / type.elements, random);
    MemoryTensors tensors;
    tensors.all["m"] = test::tensor(type.name, {n, k}, bytes);
    MatrixSource source = test::matrix_source("m", n, k);
    source.bare = true;
    StoredMatrix m = block_matrix(source, "m", type, {});
    if (type.encoding.scale == FactorType::kE4M3) m.global.multiplier = 0.01f, m.global.last = true;

    std::vector<double> weights;
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(type.bytes))
        for (int e = 0; e < type.elements; ++e)
            weights.push_back(double{test::GgufBlock(type.name, bytes.data() + at).value(e)} *
                              m.global.multiplier);

    const StoredRect rect = m.codec->needs(m, 0, {0, n}, columns);
    const int64_t row_bytes = rect.cols.size() * type.bytes;
    std::vector<std::byte> staged(static_cast<size_t>(n * row_bytes));
    tensors.reader(m)(0, rect, staged.data(), row_bytes);
    const StagedRect piece{rect, staged.data(), row_bytes, {}};
    test::AlignedBytes scratch(m.codec->scratch_bytes(m, {0, n}, columns));
    const CodeTile tile = m.codec->decode(m, {0, n}, columns, {&piece, 1}, scratch.data());
    const MatrixLayout layout = test::layout_of(m, columns);

    const std::vector<float> x = random.normals(rows * columns.size());
    SerialExecutor serial;
    Workspace workspace;
    PreparedInput input(x.data(), columns.size(), rows, columns.size(), vector_ops(detect_cpu()),
                        serial, workspace);
    const ActivationRule rule = x_type == XType::kI8 ? kInt8Input : kF32Input;
    const void* const* form = input.form(rule, x_type, layout);
    const auto kernels = kernels_for(type.encoding.code, x_type);
    ASSERT_FALSE(kernels.empty());
    for (const Kernel* kernel : kernels) {
        LinearDescriptor linear;
        linear.parts.push_back({"m", n, layout, rule});
        ASSERT_EQ(can_implement(*kernel, linear, linear.parts[0], detect_cpu()),
                  std::vector<std::string>());
        test::AlignedBytes packed(kernel->packed_bytes(n, layout));
        kernel->pack(packed.data(), n, layout, 0, tile);
        const auto out = test::multiply(*kernel, packed.data(), n, layout, form, rows, 0, n);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = 0; j < n; ++j) {
                double sum = 0, magnitude = 0, steps = 0;
                const auto* codes = static_cast<const int8_t*>(form[r]);
                const auto* scales = reinterpret_cast<const float*>(
                    static_cast<const std::byte*>(form[r]) + int8_scales_at(*layout.groups));
                int64_t c = 0;
                const auto add = [&](double value) {
                    const double w = weights[static_cast<size_t>(j * k + columns.begin + c++)];
                    sum += w * value, magnitude += std::fabs(w * value);
                    steps = std::max(steps, std::fabs(w));
                };
                if (x_type == XType::kI8) {
                    for (const uint8_t count : layout.groups->blocks) {
                        for (int i = 0; i < count; ++i) add(double{scales[0]} * codes[i]);
                        codes += round_up(count, kRunGranule), ++scales;
                    }
                } else {
                    while (c < columns.size()) add(x[static_cast<size_t>(r * columns.size() + c)]);
                }
                ASSERT_EQ(c, columns.size());
                // Products of zeros and sums of int8 input are as large as those of codes.
                const double bound = 1e-5 * (magnitude + steps * static_cast<double>(c));
                ASSERT_NEAR(out[static_cast<size_t>(r * n + j)], sum, bound)
                    << kernel->name << " " << type.name << " columns " << columns.to_string();
            }
    }
}

TEST(GgufKernels, ProductsOfEveryType) {
    test::Random random(1);
    for (const BlockType& type : block_types())
        for (const XType x : {XType::kF32, XType::kI8})
            for (int round = 0; round < 4; ++round) {
                multiply_one(type, x, random);
                if (HasFatalFailure()) return;
            }
}

// The engine's int8 input is what llama.cpp makes of a row for most types: Q8_0, its codes by the
// scale in f32, which it then stores as f16.
TEST(GgufKernels, Int8InputHasTheCodesOfQ8_0) {
    std::ifstream in(std::string(CONCLAVE_SOURCE_DIR) + "/tests/fixtures/gguf/golden-blocks.json");
    const nlohmann::json golden = nlohmann::json::parse(in)["quantize"];
    const auto x = golden["input"].get<std::vector<float>>();
    const std::string hex = golden["outputs_hex"]["quantize_row_q8_0_ref"];
    const auto byte = [&](size_t i) {
        return static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
    };
    ASSERT_EQ(hex.size(), 2 * 8 * 34u);
    MatrixLayout layout;
    layout.k = 256;
    layout.encoding = find_block_type("Q4_0")->encoding;
    layout.groups = std::make_shared<Grouping>(uniform_grouping({0, 256}, 32));
    SerialExecutor serial;
    Workspace workspace;
    for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512}) {
        if (!detect_cpu().has(isa)) continue;
        const VectorOps& ops = vector_ops(limit_isa(detect_cpu(), isa_name(isa)));
        PreparedInput input(x.data(), 256, 1, 256, ops, serial, workspace);
        const auto* row =
            static_cast<const std::byte*>(input.form(kInt8Input, XType::kI8, layout)[0]);
        const auto* scales = reinterpret_cast<const float*>(row + int8_scales_at(*layout.groups));
        for (size_t b = 0; b < 8; ++b) {
            const uint16_t half = f32_to_f16(scales[b]);
            EXPECT_EQ(half, byte(34 * b) | byte(34 * b + 1) << 8);
            for (size_t i = 0; i < 32; ++i)
                EXPECT_EQ(static_cast<uint8_t>(row[32 * b + i]), byte(34 * b + 2 + i)) << b << i;
        }
    }
}

}  // namespace
}  // namespace conclave::quant
