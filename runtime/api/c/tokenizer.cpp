#include <span>

#include "runtime/api/c/buffers.h"
#include "runtime/api/c/config.h"

using namespace conclave;
using namespace conclave::c_api;

namespace {

struct TokenizerObject {
    using Handle = conclave_tokenizer;
    static constexpr Kind kKind = Kind::kTokenizer;

    Tokenizer tokenizer;
};

}  // namespace

conclave_status conclave_tokenizer_open(const char* model, conclave_tokenizer** tokenizer) {
    return guarded([&] {
        expect(model, "model");
        expect(tokenizer, "tokenizer");
        auto found = Tokenizer::open(model);
        if (!found)
            throw Error(ErrorCode::kMissingFile, "the model has no tokenizer.json").file(model);
        *tokenizer =
            open_handle(std::make_shared<TokenizerObject>(TokenizerObject{std::move(*found)}));
    });
}

conclave_status conclave_tokenizer_destroy(conclave_tokenizer* tokenizer) {
    return guarded([&] {
        object_of<TokenizerObject>(tokenizer);
        close_handle<TokenizerObject>(tokenizer);
    });
}

conclave_status conclave_tokenizer_encode(const conclave_tokenizer* tokenizer, const char* text,
                                          size_t text_bytes, int32_t add_special_tokens,
                                          int32_t* tokens, size_t capacity, size_t* count) {
    return guarded([&] {
        const auto object = object_of<TokenizerObject>(tokenizer);
        const Buffer<int32_t> out(tokens, capacity, count, "tokens", "count");
        out.write(
            object->tokenizer.encode(text_of(text, text_bytes, "text"), add_special_tokens != 0));
    });
}

conclave_status conclave_tokenizer_decode(const conclave_tokenizer* tokenizer,
                                          const int32_t* tokens, size_t count,
                                          int32_t skip_special_tokens, char* text, size_t capacity,
                                          size_t* bytes) {
    return guarded([&] {
        const auto object = object_of<TokenizerObject>(tokenizer);
        const Buffer<char> out(text, capacity, bytes, "text", "bytes");
        expect_array(tokens, count, "tokens");
        if (count > SIZE_MAX / sizeof(int32_t) / 2)
            throw Error(ErrorCode::kUsage, "count is more than memory can hold")
                .found(std::to_string(count));
        out.write_text(object->tokenizer.decode({tokens, count}, skip_special_tokens != 0));
    });
}
