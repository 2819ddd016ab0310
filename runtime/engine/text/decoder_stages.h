// The stages decoders are made of (decoder.cpp puts them together).
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "runtime/engine/text/decoder.h"
#include "runtime/engine/text/pattern.h"

namespace conclave::engine {

/// A space between tokens.
std::unique_ptr<DecoderStage> make_join_stage();
/// Characters of the byte alphabet to bytes, bytes to text; holds an unfinished character back.
/// What cannot become one turns into U+FFFD, one for each piece of it a decoder would skip.
std::unique_ptr<DecoderStage> make_byte_level_stage();
/// A run of <0xXX> is held until it ends: it becomes text if all of it is valid, else one U+FFFD
/// for each byte.
std::unique_ptr<DecoderStage> make_byte_fallback_stage();
/// In each token.
std::unique_ptr<DecoderStage> make_replace_stage(std::shared_ptr<const Pattern> pattern,
                                                 std::string content);
/// Holds everything back and passes it on as one token.
std::unique_ptr<DecoderStage> make_fuse_stage();
/// Takes at most `start` and `stop` times `content`, one character, off the ends of each token.
std::unique_ptr<DecoderStage> make_strip_stage(std::string content, size_t start, size_t stop);
/// The same off the ends of the whole text, without holding more of it than that.
std::unique_ptr<DecoderStage> make_strip_text_stage(std::string content, size_t start, size_t stop);
/// `mark` to space; a mark at the very beginning is dropped if `drop_first`.
std::unique_ptr<DecoderStage> make_metaspace_stage(std::string mark, bool drop_first);

}  // namespace conclave::engine
