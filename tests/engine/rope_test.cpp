// Frequencies against values computed in double precision from the published formulas.
#include "runtime/engine/rope.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

RopeSpec rope(const char* parameters, int64_t dim, int64_t positions = 4096) {
    Json config = {{"rope_parameters", Json::parse(parameters)}};
    return parse_rope(config, "config.json", dim, positions);
}

void expect_frequencies(const RopeSpec& spec, const std::vector<std::pair<int, double>>& expected) {
    for (const auto& [i, f] : expected)
        EXPECT_NEAR(spec.inv_freq[i] / f, 1, 1e-6) << "frequency " << i;
}

TEST(Rope, YarnWithoutTruncation) {
    const RopeSpec s = rope(R"({"rope_type":"yarn","rope_theta":150000,"factor":32,"beta_fast":32,
        "beta_slow":1,"truncate":false,"original_max_position_embeddings":4096})",
                            64);
    expect_frequencies(s, {{0, 1},
                           {8, 0.0508132748},
                           {9, 0.0317056962},
                           {12, 0.00679495949},
                           {17, 1.29318701e-4},
                           {18, 3.83088124e-5},
                           {31, 3.02351143e-7}});
    EXPECT_NEAR(s.scale, 1.34657359, 1e-6);
}

TEST(Rope, YarnTruncated) {
    expect_frequencies(rope(R"({"rope_type":"yarn","rope_theta":10000,"factor":40,
        "original_max_position_embeddings":4096})",
                            64),
                       {{0, 1},
                        {10, 0.0562341325},
                        {11, 0.0390069266},
                        {16, 0.0055},
                        {23, 3.33380358e-5},
                        {24, 2.5e-5},
                        {31, 3.33380358e-6}});
    const RopeSpec s = rope(R"({"type":"yarn","rope_theta":1000000,"factor":4,
        "original_max_position_embeddings":32768})",
                            128);
    expect_frequencies(s, {{23, 0.00697830585},
                           {24, 0.00537532149},
                           {30, 0.00106436098},
                           {39, 6.49039432e-5},
                           {40, 4.44569853e-5}});
    EXPECT_NEAR(s.scale, 1.13862944, 1e-6);
}

TEST(Rope, Llama3) {
    expect_frequencies(rope(R"({"rope_type":"llama3","rope_theta":500000,"factor":8,
        "low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192})",
                            128),
                       {{28, 0.00321144599},
                        {29, 0.00216657076},
                        {34, 1.78507813e-4},
                        {35, 9.55621235e-5},
                        {36, 7.78465527e-5},
                        {63, 3.06892599e-7}});
}

TEST(Rope, BothSpellingsAgree) {
    const Json old = {{"rope_theta", 5e5}, {"rope_scaling", {{"type", "linear"}, {"factor", 2}}}};
    const RopeSpec a = parse_rope(old, "f", 32, 100);
    const RopeSpec b = rope(R"({"rope_type":"linear","rope_theta":5e5,"factor":2})", 32);
    EXPECT_EQ(a.inv_freq, b.inv_freq);
    const RopeSpec plain = parse_rope({{"rope_theta", 5e5}, {"rope_scaling", nullptr}}, "f", 32, 9);
    EXPECT_FLOAT_EQ(plain.inv_freq[3], 2 * a.inv_freq[3]);
}

TEST(Rope, RowsTurnByTheAngle) {
    const RopeSpec s = rope(R"({"rope_type":"default","rope_theta":10000})", 8);
    float cos[4], sin[4];
    s.row(1000, cos, sin);
    for (int i = 0; i < 4; ++i) {
        EXPECT_NEAR(cos[i], std::cos(1000 * std::pow(10000.0, -i / 4.0)), 1e-4);
        EXPECT_NEAR(cos[i] * cos[i] + sin[i] * sin[i], 1, 1e-6);
    }
}

TEST(Rope, RefusesNonsense) {
    for (const char* bad :
         {R"({"rope_theta":-1})", R"({"rope_theta":0})", R"({"rope_theta":"x"})",
          R"({"rope_type":"yarn","factor":0})", R"({"rope_type":"spiral"})", R"({"rope_type":7})",
          R"({"partial_rotary_factor":2})", R"({"rope_type":"llama3","low_freq_factor":-1})"})
        EXPECT_THROW(rope(bad, 64), Error) << bad;
}

}  // namespace
}  // namespace conclave::engine
