#include "quant/formats/pattern.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

TEST(Pattern, StartsOrFindsAsPythonDoes) {
    EXPECT_TRUE(matches_start("model", "model.layers.0"));
    EXPECT_FALSE(matches_start("layers", "model.layers.0"));
    EXPECT_TRUE(found_in("layers", "model.layers.0"));
    EXPECT_TRUE(
        matches_start(R"(.*self_attn\.(q|k|v|o)_proj$)", "model.layers.1.self_attn.k_proj"));
    EXPECT_FALSE(matches_start(R"(.*layers\.\d+\.mlp\.(gate|up|down)_proj$)",
                               "model.layers.1.mlp.experts.0.up_proj"));
    EXPECT_TRUE(matches_start(R"(^(?!.*lm_head).*)", "model.x"));
    EXPECT_FALSE(matches_start(R"(^(?!.*lm_head).*)", "lm_head"));
    EXPECT_TRUE(matches_start("", ""));
    const Pattern both("b+");
    EXPECT_FALSE(both.matches_start("abb"));
    EXPECT_TRUE(both.found_in("abb"));
}

TEST(Pattern, RefusesWhatIsNoneAndWhatTakesTooLong) {
    const std::string nested(5000, '('), long_one(100'000, 'a'), name(4000, 'a');
    for (const std::string& text : {std::string("("), std::string("["), nested, long_one,
                                    std::string("*a"), std::string("(?<=a*)b")}) {
        try {
            matches_start(text, "a");
            ADD_FAILURE() << text.substr(0, 20);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent);
            EXPECT_LT(std::string(e.what()).size(), 400u);
        }
    }
    for (const char* text : {"(a+)+$b", "(a|a)*b", "(?:a?){500}a{500}b", R"((\w*)*\d)"}) {
        try {
            EXPECT_FALSE(matches_start(text, name + "c"));
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent);
        }
    }
}

}  // namespace
}  // namespace conclave::quant
