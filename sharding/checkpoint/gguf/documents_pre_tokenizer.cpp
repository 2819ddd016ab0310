// The regular expressions behind the names of tokenizer.ggml.pre, as tokenizer.json of the models
// that the names are taken from has them.
#include <algorithm>
#include <array>

#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/documents.h"

namespace conclave::sharding {
namespace {

constexpr const char* kQwen = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                              R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
    R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|)"
    R"('t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|)"
    R"('t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|)"
    R"(\s+)";
constexpr const char* kDeepSeekV3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
    R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepSeekV3Han = R"([一-龥)"
                                       "\u3040"
                                       R"(-ゟ゠-ヿ]+)";
constexpr const char* kLetters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ)"
    R"(-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ)"
    R"(-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ)"
    R"(-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ)"
    R"(-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ)"
    R"(𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
constexpr const char* kPunctuation = R"(\s?[!-/:-~！-／：-～‘-‟)"
                                     "\u3000"
                                     R"(-。]+)";
constexpr const char* kHan = R"([一-龥ࠀ-一가-)"
                             "\uD7FF"
                             R"(]+)";
constexpr const char* kThreeDigits = R"(\p{N}{1,3})";
constexpr const char* kLineBreak = R"([\r\n])";
constexpr const char* kLineEnd = R"(\s+$)";
constexpr const char* kAnyLetters = R"(\s?\p{L}+)";
constexpr const char* kAnyPunctuation = R"(\s?\p{P}+)";

struct PreTokenizer {
    const char* name;
    std::array<const char*, 5> splits = {};  ///< none: ByteLevel's own expression, GPT-2's
    bool single_digits = false;
    bool nfc = false;
    bool ignore_merges = false;
    bool adds_bos = false;
};
constexpr std::array<PreTokenizer, 24> kPreTokenizers = {{
    {"default"},
    {"gpt-2"},
    {"phi-2"},
    {"olmo", {}, false, true},
    {"dolma", {}, false, true},
    {"smollm", {}, true},
    {"starcoder", {}, true},
    {"refact", {}, true},
    {"llama-bpe", {kLlama3}, false, false, true, true},
    {"llama3", {kLlama3}, false, false, true, true},
    {"llama-v3", {kLlama3}, false, false, true, true},
    {"smaug-bpe", {kLlama3}},
    {"dbrx", {kLlama3}},
    {"qwen2", {kQwen}, false, true},
    {"deepseek-r1-qwen", {kQwen}, false, true},
    {"megrez", {kQwen}, false, true},
    {"qwen35", {kQwen35}, false, true},
    {"gpt-4o", {kO200k}},
    {"llama4", {kO200k}},
    {"minimax-m2", {kO200k}},
    {"deepseek-llm", {kLineBreak, kLetters, kPunctuation, kLineEnd, kHan}, true},
    {"deepseek-coder", {kLineBreak, kAnyLetters, kAnyPunctuation, kHan}, true},
    {"deepseek-v3", {kThreeDigits, kDeepSeekV3Han, kDeepSeekV3Words}},
    {"hunyuan-dense", {kThreeDigits, kDeepSeekV3Han, kDeepSeekV3Words}},
}};

Json byte_level(bool use_regex) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", use_regex}};
}

}  // namespace

GgufPreTokenizer gguf_pre_tokenizer(const std::string& name, const std::string& file) {
    const auto found = std::find_if(kPreTokenizers.begin(), kPreTokenizers.end(),
                                    [&](const PreTokenizer& p) { return p.name == name; });
    if (found == kPreTokenizers.end()) {
        std::string known;
        for (const PreTokenizer& p : kPreTokenizers)
            known += (known.empty() ? "" : ", ") + std::string(p.name);
        throw Error(ErrorCode::kUnsupported, "tokenizer.ggml.pre is not served")
            .file(file)
            .expected(known)
            .found(printable(name, 64));
    }
    Json stages = Json::array();
    for (const char* split : found->splits)
        if (split)
            stages.push_back({{"type", "Split"},
                              {"pattern", {{"Regex", split}}},
                              {"behavior", "Isolated"},
                              {"invert", false}});
    const bool own = stages.empty();
    if (found->single_digits) stages.push_back({{"type", "Digits"}, {"individual_digits", true}});
    stages.push_back(byte_level(own));
    Json pre =
        stages.size() == 1 ? stages[0] : Json{{"type", "Sequence"}, {"pretokenizers", stages}};
    return {std::move(pre), found->nfc, found->ignore_merges, found->adds_bos};
}

}  // namespace conclave::sharding
