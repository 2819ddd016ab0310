// Writes safetensors files for tests, well-formed or (through raw_safetensors) not.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace conclave::testing {

struct TensorToWrite {
    std::string name;
    std::string dtype;  ///< as the file spells it: "BF16"
    std::vector<int64_t> shape;
    std::string data;  ///< raw bytes, row-major, little endian
};

/// The bytes of `values` as TensorToWrite::data wants them.
template <class T>
std::string raw_bytes(const std::vector<T>& values) {
    std::string data(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(data.data(), values.data(), data.size());
    return data;
}

inline void write_file(const std::string& path, const std::string& bytes) {
    std::remove(path.c_str());  // rewriting in place would wait for the disk on some file systems
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path);
}

/// Length field, `header` and `data` as given: nothing is checked or padded.
inline std::string raw_safetensors(const std::string& header, const std::string& data) {
    std::string bytes;
    for (int shift = 0; shift < 64; shift += 8)
        bytes += static_cast<char>(uint64_t{header.size()} >> shift & 0xff);
    return bytes + header + data;
}

/// The file's bytes, tensors in the order given; `metadata` is a list of pairs. Names and metadata
/// must need no JSON escapes.
inline std::string safetensors_bytes(
    const std::vector<TensorToWrite>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata = {{"format", "pt"}}) {
    std::string header = "{";
    const auto separate = [&] {
        if (header.size() > 1) header += ',';
    };
    if (!metadata.empty()) {
        header += "\"__metadata__\":{";
        for (size_t i = 0; i < metadata.size(); ++i)
            header += (i ? ",\"" : "\"") + metadata[i].first + "\":\"" + metadata[i].second + "\"";
        header += '}';
    }
    std::string data;
    for (const TensorToWrite& t : tensors) {
        separate();
        header += "\"" + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[";
        for (size_t i = 0; i < t.shape.size(); ++i) {
            if (i) header += ',';
            header += std::to_string(t.shape[i]);
        }
        header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
                  std::to_string(data.size() + t.data.size()) + "]}";
        data += t.data;
    }
    header += '}';
    header.append((8 - header.size() % 8) % 8, ' ');
    return raw_safetensors(header, data);
}

inline void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors) {
    write_file(path, safetensors_bytes(tensors));
}

}  // namespace conclave::testing
