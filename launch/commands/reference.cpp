#include "launch/commands/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "runtime/api/conclave.hpp"

namespace conclave::launch {
namespace {

std::string shape_text(const std::string& dtype, const std::vector<int64_t>& shape) {
    std::string text = dtype + " [";
    for (size_t i = 0; i < shape.size(); ++i)
        text += (i == 0 ? "" : ",") + std::to_string(shape[i]);
    return text + "]";
}

/// One reference file, and its errors.
class Reader {
  public:
    explicit Reader(std::string file) : file_(std::move(file)) {}

    Error bad(const std::string& tensor, const char* what) const {
        Error error(ErrorCode::kBadContent, what);
        error.file(file_).tensor(tensor);
        return error;
    }

    HostTensor required(const std::string& name) const {
        if (std::optional<HostTensor> tensor = read_tensor(file_, name)) return std::move(*tensor);
        throw bad(name, "the reference lacks a tensor");
    }

    std::vector<int32_t> ids(const std::string& name, const HostTensor& tensor,
                             size_t dimensions) const {
        const bool wide = tensor.dtype == "I64";
        if ((!wide && tensor.dtype != "I32") || tensor.shape.size() != dimensions ||
            tensor.data.empty())
            throw bad(name, "the reference has ids of the wrong kind")
                .expected(dimensions == 1 ? "I64 [N], not empty" : "I64 [B,T], not empty")
                .found(shape_text(tensor.dtype, tensor.shape));
        const size_t width = wide ? 8 : 4;
        std::vector<int32_t> ids(tensor.data.size() / width);
        for (size_t i = 0; i < ids.size(); ++i) {
            int64_t id = 0;  // little endian: the low half of a wide one comes first
            std::memcpy(&id, tensor.data.data() + i * width, width);
            if (id < 0 || id > std::numeric_limits<int32_t>::max())
                throw bad(name, "the reference has an impossible token id")
                    .expected("0 to 2147483647")
                    .found(std::to_string(id));
            ids[i] = static_cast<int32_t>(id);
        }
        return ids;
    }

    std::vector<float> floats(const std::string& name, const HostTensor& tensor,
                              const std::vector<int64_t>& shape) const {
        if (tensor.dtype != "F32" || tensor.shape != shape)
            throw bad(name, "the reference has a tensor of the wrong shape")
                .expected(shape_text("F32", shape))
                .found(shape_text(tensor.dtype, tensor.shape));
        std::vector<float> values(tensor.data.size() / sizeof(float));
        std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(float));
        if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
            throw bad(name, "the reference has values that are not finite");
        return values;
    }

    void read_greedy(Reference& to) const {
        const std::optional<HostTensor> prompt = read_tensor(file_, "greedy_prompt");
        if (!prompt) return;
        to.greedy_prompt = ids("greedy_prompt", *prompt, 1);
        to.greedy_ids = ids("greedy_ids", required("greedy_ids"), 1);
        const std::optional<HostTensor> margin = read_tensor(file_, "greedy_margin");
        if (!margin) return;
        to.greedy_margin =
            floats("greedy_margin", *margin, {static_cast<int64_t>(to.greedy_ids.size())});
    }

    void read_logits(Reference& to) const {
        const HostTensor tensor = required("logits");
        if (tensor.shape.size() != 3 || tensor.shape[2] <= 0)
            throw bad("logits", "the reference has a tensor of the wrong shape")
                .expected("F32 [B,T,V], not empty")
                .found(shape_text(tensor.dtype, tensor.shape));
        to.vocab = tensor.shape[2];
        to.logits = floats("logits", tensor, {to.batch, to.length, to.vocab});
    }

  private:
    std::string file_;
};

}  // namespace

int64_t Reference::longest() const {
    const size_t greedy = greedy_prompt.size() + greedy_ids.size();
    return std::max(length, static_cast<int64_t>(greedy));
}

Reference read_reference(const std::string& file, bool with_logits) {
    const Reader reader(file);
    Reference reference;
    const HostTensor input = reader.required("input_ids");
    reference.input_ids = reader.ids("input_ids", input, 2);
    reference.batch = input.shape[0];
    reference.length = input.shape[1];
    reader.read_greedy(reference);
    if (with_logits) reader.read_logits(reference);
    return reference;
}

}  // namespace conclave::launch
