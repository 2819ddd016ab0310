#include "sharding/checkpoint/safetensors_index.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::sharding {
namespace {

constexpr size_t kMaxIndexBytes = 100'000'000;

/// A file of the same directory, so that an index cannot lead out of it.
bool is_plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
           name.find('\0') == name.npos;
}

/// Keeps weight_map and lets everything else pass.
class IndexHandler final : public JsonHandler {
  public:
    explicit IndexHandler(const std::string& path) : path_(path) {}

    void on_null() override { scalar("null"); }
    void on_bool(bool v) override { scalar(v ? "true" : "false"); }
    void on_int(int64_t v) override { scalar(std::to_string(v)); }
    void on_uint(uint64_t v) override { scalar(std::to_string(v)); }
    void on_double(double v) override { scalar(describe_json(v)); }
    void on_string(std::string& v) override {
        if (!in_map_) return scalar(in_quotes(v));
        if (!is_plain_name(v))
            throw error("weight_map names a file outside the directory")
                .tensor(printable(name_))
                .expected("a plain file name")
                .found(in_quotes(v));
        const auto file = files_.try_emplace(std::move(v), static_cast<int>(files_.size()));
        tensors_.emplace_back(std::move(name_), file.first->second);
    }
    void on_key(std::string& key) override {
        if (in_map_) {
            name_ = std::move(key);
        } else if (depth_ == 1) {
            map_next_ = key == "weight_map";
            if (map_next_ && std::exchange(has_map_, true)) throw error("duplicate weight_map");
        }
    }
    void on_begin_object() override {
        if (in_map_) scalar("an object");
        if (depth_ == 1 && map_next_) in_map_ = true;
        map_next_ = false;
        ++depth_;
    }
    void on_end_object() override {
        in_map_ = false;  // nothing nests inside weight_map
        --depth_;
    }
    void on_begin_array() override {
        scalar("an array");
        ++depth_;
    }
    void on_end_array() override { --depth_; }

    SafetensorsIndex take() {
        if (tensors_.empty()) throw error("index has no weight_map or an empty one");
        SafetensorsIndex index;
        std::vector<std::pair<std::string, int>> names(files_.begin(), files_.end());
        std::sort(names.begin(), names.end());
        std::vector<int> position(names.size());
        for (size_t i = 0; i < names.size(); ++i) {
            position[static_cast<size_t>(names[i].second)] = static_cast<int>(i);
            index.files.push_back(std::move(names[i].first));
        }
        for (auto& [name, file] : tensors_) file = position[static_cast<size_t>(file)];
        std::sort(tensors_.begin(), tensors_.end());
        const auto twice =
            std::adjacent_find(tensors_.begin(), tensors_.end(),
                               [](const auto& a, const auto& b) { return a.first == b.first; });
        if (twice != tensors_.end())
            throw error("weight_map names a tensor twice").tensor(printable(twice->first));
        index.tensors = std::move(tensors_);
        return index;
    }

  private:
    Error error(std::string message) const {
        return std::move(Error(ErrorCode::kBadContent, std::move(message)).file(path_));
    }
    /// Anything that is neither a member of weight_map nor weight_map itself.
    void scalar(const std::string& found) const {
        if (in_map_)
            throw error("malformed weight_map")
                .tensor(printable(name_))
                .expected("a file name")
                .found(found);
        if (map_next_ || depth_ == 0)
            throw error("malformed index")
                .expected(depth_ == 0 ? "an object" : "weight_map to be an object")
                .found(found);
    }

    const std::string& path_;
    int depth_ = 0;
    bool map_next_ = false, in_map_ = false, has_map_ = false;
    std::string name_;
    std::unordered_map<std::string, int> files_;
    std::vector<std::pair<std::string, int>> tensors_;
};

}  // namespace

SafetensorsIndex read_safetensors_index(const std::string& path) {
    IndexHandler handler(path);
    JsonLimits limits;
    limits.file = path;
    limits.max_bytes = kMaxIndexBytes;
    limits.max_depth = 32;
    read_json(File(path).read_whole(kMaxIndexBytes), limits, handler);
    return handler.take();
}

}  // namespace conclave::sharding
