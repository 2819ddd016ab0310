// The matrices of a checkpoint, and its reader, as subjects of laws.
#pragma once
#include "runtime/engine/conformance/search.h"
#include "runtime/engine/conformance/subject.h"
#include "runtime/engine/model_setup.h"

namespace conclave::engine::conformance {

struct CheckpointSubjects {
    ModelSetup model;  ///< codecs may refer to its format
    Subjects subjects;
};

/// Builds the model for one rank from headers; up to 60 matrices of different shapes and encodings,
/// quantized ones first. Throws as loading does.
CheckpointSubjects open_checkpoint(const std::string& directory,
                                   const std::shared_ptr<const Extensions>& extensions);

struct ReaderLaw {
    const char* name;
    Verdict (*check)(const sharding::Checkpoint& checkpoint, uint64_t seed);
};
const std::vector<ReaderLaw>& reader_laws();
Outcome search_reader(const ReaderLaw& law, const sharding::CheckpointReaders& readers,
                      const std::string& reader, const std::string& directory, const Trial& trial);

}  // namespace conclave::engine::conformance
