#include "runtime/api/conclave.hpp"
#include "runtime/engine/model_files.h"
#include "runtime/engine/text/stop_strings.h"
#include "runtime/engine/text/tokenizer.h"
#include "sharding/checkpoint/reader.h"

namespace conclave {
namespace {

/// The largest tokenizer.json of a released model is about 35 MB.
constexpr uint64_t kMaxTokenizerBytes = 256u << 20;

}  // namespace

struct TextStream::Impl {
    std::shared_ptr<const engine::Tokenizer> tokenizer;
    std::unique_ptr<engine::Tokenizer::Stream> stream;
    engine::StopStrings stop;
};
TextStream::TextStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TextStream::~TextStream() = default;
TextStream::TextStream(TextStream&&) noexcept = default;
std::string TextStream::add(int32_t id) { return impl_->stop.add(impl_->stream->add(id)); }
std::string TextStream::finish() {
    const std::string text = impl_->stop.add(impl_->stream->finish());
    return text + impl_->stop.finish();
}
bool TextStream::stopped() const { return impl_->stop.matched(); }

struct Tokenizer::Impl {
    std::shared_ptr<const engine::Tokenizer> tokenizer;
};

std::optional<Tokenizer> Tokenizer::open(const std::string& model) {
    const engine::ModelFiles files = engine::open_model_place(model);
    const auto text = files.document("tokenizer.json", kMaxTokenizerBytes);
    if (!text) return std::nullopt;
    Tokenizer t;
    t.impl_ = std::make_shared<Impl>(
        Impl{engine::Tokenizer::parse(*text, files.path_of("tokenizer.json"))});
    return t;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
    return impl_->tokenizer->encode(text, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
    return impl_->tokenizer->decode(ids, skip_special_tokens);
}

TextStream Tokenizer::stream(bool skip_special_tokens, std::vector<std::string> stop) const {
    return TextStream(std::make_unique<TextStream::Impl>(
        TextStream::Impl{impl_->tokenizer, impl_->tokenizer->stream(skip_special_tokens),
                         engine::StopStrings(std::move(stop))}));
}

int64_t Tokenizer::vocab_size() const { return impl_->tokenizer->vocab_size(); }

std::optional<HostTensor> read_tensor(const std::string& file, const std::string& name) {
    const auto checkpoint = sharding::Checkpoint::open(file);
    const sharding::StoredTensor* t = checkpoint->find(name);
    if (!t) return std::nullopt;
    HostTensor out{sharding::stored_type_name(t->type), t->shape, {}};
    out.data.resize(t->bytes);
    checkpoint->read(t->file, t->offset, out.data);
    return out;
}

}  // namespace conclave
