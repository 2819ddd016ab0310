#include "sharding/checkpoint/writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include <spdlog/fmt/fmt.h>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"

namespace conclave::sharding {

CheckpointWriter::CheckpointWriter(std::string directory, std::vector<OutputTensor> tensors,
                                   StoredType type, uint64_t max_file_bytes)
    : directory_(std::move(directory)), type_(type) {
    std::sort(tensors.begin(), tensors.end(),
              [](const OutputTensor& a, const OutputTensor& b) { return a.name < b.name; });
    std::vector<nlohmann::ordered_json> headers;
    std::vector<uint64_t> data;
    for (const OutputTensor& t : tensors) {
        uint64_t bytes = static_cast<uint64_t>(element_bytes());
        for (int64_t d : t.shape) bytes *= static_cast<uint64_t>(d);
        if (headers.empty() || (data.back() > 0 && data.back() + bytes > max_file_bytes)) {
            headers.push_back({{"__metadata__", {{"format", "pt"}}}});
            data.push_back(0);
        }
        headers.back()[t.name] = {{"dtype", stored_type_name(type)},
                                  {"shape", t.shape},
                                  {"data_offsets", {data.back(), data.back() + bytes}}};
        places_[t.name] = {headers.size() - 1, data.back(), bytes};
        data.back() += bytes;
        bytes_ += bytes;
    }
    for (size_t i = 0; i < headers.size(); ++i) {
        std::string text = headers[i].dump();
        text.append((8 - text.size() % 8) % 8, ' ');
        std::string length(8, '\0');
        for (size_t b = 0; b < 8; ++b) length[b] = static_cast<char>(text.size() >> 8 * b & 0xff);
        headers_.push_back(length + text);
        sizes_.push_back(headers_.back().size() + data[i]);
        names_.push_back(headers.size() == 1 ? "model.safetensors"
                                             : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                           i + 1, headers.size()));
    }
    for (auto& [_, place] : places_) place.offset += headers_[place.file].size();
    if (headers.size() == 1) return;
    nlohmann::ordered_json index;
    index["metadata"]["total_size"] = bytes_;
    for (const OutputTensor& t : tensors)
        index["weight_map"][t.name] = names_[places_[t.name].file];
    index_ = index.dump(2) + "\n";
}

void CheckpointWriter::create() {
    for (size_t i = 0; i < names_.size(); ++i) {
        files_.push_back(OutputFile::create(path(names_[i]), sizes_[i]));
        files_.back().write(0, std::as_bytes(std::span(headers_[i])));
    }
    if (!index_.empty()) write_whole_file(path("model.safetensors.index.json"), index_);
}

void CheckpointWriter::open() {
    for (size_t i = 0; i < names_.size(); ++i)
        files_.push_back(OutputFile::open(path(names_[i]), sizes_[i]));
}

void CheckpointWriter::discard() noexcept {
    for (const std::string& name : names_) ::unlink(path(name).c_str());
    if (!index_.empty()) ::unlink(path("model.safetensors.index.json").c_str());
}

void CheckpointWriter::write(const std::string& tensor, int64_t first,
                             std::span<const std::byte> bytes) const {
    const auto at = places_.find(tensor);
    CONCLAVE_CHECK(at != places_.end());
    const uint64_t offset = static_cast<uint64_t>(first * element_bytes());
    CONCLAVE_CHECK(first >= 0 && offset + bytes.size() <= at->second.bytes);
    files_[at->second.file].write(at->second.offset + offset, bytes);
}

void CheckpointWriter::close() {
    for (OutputFile& f : files_) f.close();
    files_.clear();
}

}  // namespace conclave::sharding
