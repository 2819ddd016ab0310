#include "quant/formats/compressed_tensors_args.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;
constexpr int64_t kNvGroup = 16;  ///< of NVFP4

Error bad(const std::string& what, const std::string& file) {
    return std::move(Error(ErrorCode::kBadContent, what).file(file));
}

struct StrategyName {
    const char* name;
    CtStrategy strategy;
};
constexpr std::array<StrategyName, 7> kStrategies = {{
    {"tensor", CtStrategy::kTensor},
    {"channel", CtStrategy::kChannel},
    {"group", CtStrategy::kGroup},
    {"block", CtStrategy::kBlock},
    {"tensor_group", CtStrategy::kTensorGroup},
    {"token", CtStrategy::kToken},
    {"attn_head", CtStrategy::kHead},
}};

std::string strategy_name(CtStrategy s) {
    const auto it = std::find_if(kStrategies.begin(), kStrategies.end(),
                                 [&](const StrategyName& n) { return n.strategy == s; });
    return in_quotes(it->name);
}

/// [128, 128] or "128x128".
void parse_block(const Json& args, CtArgs& a, const std::string& file) {
    const Json* block = find_json(args, "block_structure", file);
    if (!block) throw bad("'strategy' block without a 'block_structure'", file);
    if (block->is_string()) {
        const auto& text = block->get_ref<const std::string&>();
        const auto number = [&](std::string_view digits) {
            const bool good = !digits.empty() && digits.size() <= 9 &&
                              std::all_of(digits.begin(), digits.end(),
                                          [](char c) { return c >= '0' && c <= '9'; });
            return good ? std::stoll(std::string(digits)) : 0;
        };
        const size_t x = text.find('x');
        a.rows = number(std::string_view(text).substr(0, x));
        a.columns = x == std::string::npos ? 0 : number(std::string_view(text).substr(x + 1));
        if (a.rows > 0 && a.columns > 0) return;
    } else if (block->is_array() && block->size() == 2) {
        a.rows = as_int((*block)[0], "block_structure", 1, kMost, file);
        a.columns = as_int((*block)[1], "block_structure", 1, kMost, file);
        return;
    }
    throw bad("'block_structure' is no pair of numbers", file)
        .expected("[rows, columns]")
        .found(describe_json(*block));
}

void parse_strategy(const Json& args, CtArgs& a, const std::string& file) {
    const int64_t group = get_int_or(args, "group_size", 0, -1, kMost, file);
    if (find_json(args, "group_size", file) && group == 0)
        throw bad("'group_size' cannot be 0", file).expected("-1 or more than 0");
    const std::string inferred = group > 0 ? "group" : group == -1 ? "channel" : "tensor";
    const std::string name = get_string_or(args, "strategy", inferred, file);
    const auto known = std::find_if(kStrategies.begin(), kStrategies.end(),
                                    [&](const StrategyName& n) { return name == n.name; });
    if (known == kStrategies.end())
        throw bad("unknown 'strategy'", file)
            .expected("tensor, channel, group, block, tensor_group, token or attn_head")
            .found(in_quotes(name));
    a.strategy = known->strategy;
    if (a.strategy == CtStrategy::kTensor) {
        a.rows = 0;
    } else if (a.strategy == CtStrategy::kBlock) {
        parse_block(args, a, file);
    } else if (a.strategy == CtStrategy::kTensorGroup && group == 0) {
        a.columns = kNvGroup;
    } else if (a.strategy == CtStrategy::kGroup || a.strategy == CtStrategy::kTensorGroup) {
        if (group == 0) throw bad("'strategy' " + name + " without a 'group_size'", file);
        a.columns = std::max<int64_t>(group, 0);
    }
}

void parse_dynamic(const Json& args, CtArgs& a, const std::string& file) {
    const Json* dynamic = find_json(args, "dynamic", file);
    if (!dynamic) return;
    const bool local = dynamic->is_string() && dynamic->get_ref<const std::string&>() == "local";
    if (!local && !dynamic->is_boolean())
        throw bad("'dynamic' is neither true, false nor 'local'", file)
            .found(describe_json(*dynamic));
    a.dynamic = local ? CtDynamic::kLocal : dynamic->get<bool>() ? CtDynamic::kYes : CtDynamic::kNo;
}

void parse_actorder(const Json& args, const std::string& file) {
    // The tensors tell whether columns are permuted; only the spelling is checked.
    const Json* order = find_json(args, "actorder", file);
    if (!order || order->is_boolean()) return;
    constexpr std::array<const char*, 4> kOrders = {"group", "weight", "static", "dynamic"};
    if (!order->is_string() || std::none_of(kOrders.begin(), kOrders.end(), [&](const char* known) {
            return order->get_ref<const std::string&>() == known;
        }))
        throw bad("unknown 'actorder'", file)
            .expected("group, weight, static or dynamic")
            .found(describe_json(*order));
}

std::string bits_of(const CtArgs& a) { return std::to_string(a.bits) + " bits"; }

}  // namespace

CtArgs parse_ct_args(const Json& args, const std::string& file) {
    CtArgs a;
    a.bits = static_cast<int>(get_int_or(args, "num_bits", 8, 1, 64, file));
    const std::string type = get_string_or(args, "type", "int", file);
    if (type != "int" && type != "float")
        throw bad("unknown 'type' of quantized numbers", file)
            .expected("int or float")
            .found(in_quotes(type));
    a.is_float = type == "float";
    a.symmetric = get_bool_or(args, "symmetric", true, file);
    a.powers = get_string_or(args, "scale_dtype", "", file).ends_with("uint8");
    parse_actorder(args, file);
    parse_strategy(args, a, file);
    parse_dynamic(args, a, file);
    return a;
}

std::string ct_weights_refusal(const CtArgs& a) {
    if (a.dynamic != CtDynamic::kNo) return "weights with 'dynamic' scales";
    using S = CtStrategy;
    const auto any_of = [&](std::initializer_list<S> served) {
        return std::find(served.begin(), served.end(), a.strategy) != served.end();
    };
    if (!a.is_float) {
        if (a.bits > 8) return "integer weights of " + bits_of(a);
        if (any_of({S::kTensor, S::kChannel, S::kGroup})) return "";
        return "integer weights with strategy " + strategy_name(a.strategy);
    }
    if (a.bits != 4 && a.bits != 8) return "float weights of " + bits_of(a);
    if (!a.symmetric) return "float weights with zero points";
    const bool served = a.bits == 4 ? any_of({S::kGroup, S::kTensorGroup})
                                    : any_of({S::kTensor, S::kChannel, S::kGroup, S::kBlock});
    if (served) return "";
    return "float weights of " + bits_of(a) + " with strategy " + strategy_name(a.strategy);
}

std::string ct_inputs_refusal(const CtArgs& a) {
    using S = CtStrategy;
    const std::string what =
        std::string("'input_activations' of ") + bits_of(a) + (a.is_float ? " (float)" : " (int)");
    if (a.bits != 8 && !(a.is_float && a.bits == 4)) return what;
    if (a.is_float && !a.symmetric) return what + " with zero points";
    // Whether the rule exists depends on a scalar, so its groups may not be cut over ranks.
    if (a.strategy == S::kTensorGroup && a.columns != kNvGroup)
        return what + " with strategy " + strategy_name(a.strategy) + " and a 'group_size' of " +
               std::to_string(a.columns > 0 ? a.columns : -1) + " (16 is served)";
    bool served = false;
    if (a.is_float && a.bits == 4)
        served = a.strategy == S::kTensorGroup
                     ? a.dynamic == CtDynamic::kLocal
                     : a.strategy == S::kGroup && a.powers && a.dynamic == CtDynamic::kYes;
    else if (a.dynamic == CtDynamic::kNo)
        served = a.strategy == S::kTensor;
    else if (a.dynamic == CtDynamic::kYes)
        served = a.strategy == S::kToken || a.strategy == S::kTensor ||
                 (a.is_float && a.strategy == S::kGroup);
    if (served) return "";
    const char* when = a.dynamic == CtDynamic::kNo    ? "static"
                       : a.dynamic == CtDynamic::kYes ? "dynamic"
                                                      : "'local'";
    return what + ", " + when + ", with strategy " + strategy_name(a.strategy);
}

Json ct_preset(const std::string& preset, bool old) {
    std::string name = preset;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto group = [](const Json& weights, const Json& inputs) {
        return Json{{"weights", weights}, {"input_activations", inputs}};
    };
    const auto grouped = [](const char* type, int bits, int64_t columns) {
        return Json{
            {"type", type}, {"num_bits", bits}, {"strategy", "group"}, {"group_size", columns}};
    };
    const auto one = [](const char* type, const char* strategy, bool dynamic) {
        return Json{{"type", type}, {"strategy", strategy}, {"dynamic", dynamic}};
    };
    const Json int8_token = one("int", "token", true), fp8_token = one("float", "token", true);
    if (name == "INT8" || name == "W8A8") return group(one("int", "channel", false), int8_token);
    if (name == "FP8") return group(one("float", "tensor", false), one("float", "tensor", false));
    if (name == "FP8_DYNAMIC") return group(one("float", "channel", false), fp8_token);
    if (name == "FP8_BLOCK") {
        Json weights = one("float", "block", false), inputs = grouped("float", 8, 128);
        weights["block_structure"] = {128, 128};
        inputs["dynamic"] = true;
        return group(weights, inputs);
    }
    if (name == "NVFP4" || name == "NVFP4A16") {
        Json weights = grouped("float", 4, 16);
        weights["strategy"] = "tensor_group";
        Json inputs = weights;
        inputs["dynamic"] = "local";
        return group(weights, name == "NVFP4" ? inputs : Json());
    }
    if (name.starts_with("MXFP") && (name[4] == '4' || name[4] == '8') &&
        (name.size() == 5 || name.substr(5) == "A16")) {
        Json weights = grouped("float", name[4] - '0', 32);
        weights["scale_dtype"] = "torch.uint8";
        Json inputs = weights;
        inputs["dynamic"] = true;
        return group(weights, name.size() == 5 ? inputs : Json());
    }
    if (name.size() < 4 || name[0] != 'W' || name[1] < '2' || name[1] > '8') return nullptr;
    const std::string rest = name.substr(2);
    // W8A16 was per channel at first; the shapes of the scales are checked in any case.
    Json weights =
        name == "W8A16" && old ? one("int", "channel", false) : grouped("int", name[1] - '0', 128);
    if (rest == "A16") return group(weights, nullptr);
    if (rest == "A8") return group(weights, int8_token);
    if (rest == "AFP8") return group(weights, fp8_token);
    if (rest == "A4") {
        Json inputs = int8_token;
        inputs["num_bits"] = 4;
        return group(weights, inputs);
    }
    if (rest != "A16_ASYM") return nullptr;
    weights["symmetric"] = false;
    return group(weights, nullptr);
}

}  // namespace conclave::quant
