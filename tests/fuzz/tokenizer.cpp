// tokenizer.json: what is accepted encodes and decodes any text, at once and as a stream.
#include "runtime/engine/text/tokenizer.h"

#include "tests/fuzz/target.h"

using namespace conclave;

namespace {
constexpr char kText[] =
    "<s> Hello, world's 12345 na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82\n\n\t  if(x)"
    " {a += 1;}\xff\xfe e\xcc\x81 \xea\xb0\x80<|im_end|>[INST] aaaaaaaaaaaaaaaaaaaaaaaa  ";
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz::attempt([&] {
        const auto tokenizer = engine::Tokenizer::parse(fuzz::text(data, size), "tokenizer.json");
        for (const bool special : {false, true}) {
            auto ids = tokenizer->encode(std::string_view(kText, sizeof kText - 1), special);
            for (const engine::TokenId id : ids)
                CONCLAVE_CHECK(id >= 0 && id < tokenizer->vocab_size());
            for (const engine::TokenId id : {0, 1, 2, 255, -1, 1 << 30}) ids.push_back(id);
            std::string streamed;
            const auto stream = tokenizer->stream(special);
            for (const engine::TokenId id : ids) streamed += stream->add(id);
            streamed += stream->finish();
            CONCLAVE_CHECK(streamed == tokenizer->decode(ids, special));
        }
    });
}
