// A checkpoint reader from a plugin. A TBOX checkpoint is a folder with model.tbox, a text of lines
//
//     TBOX 1
//     blob FILE                              numbered from 0
//     tensor NAME TYPE 3x5 BLOB OFFSET       an empty shape is -
//
// and the blobs, raw bytes. The plugin also has a reader that says untrue things of such folders.
#include <conclave/plugin.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace {

using namespace conclave;
using namespace conclave::sharding;

constexpr const char* kHeader = "model.tbox";
constexpr uint64_t kMostHeaderBytes = uint64_t{1} << 24;

struct TypeName {
    const char* name;
    StoredType type;
    uint64_t bytes;
};
constexpr TypeName kTypes[] = {
    {"U8", StoredType::kU8, 1},   {"F16", StoredType::kF16, 2}, {"BF16", StoredType::kBF16, 2},
    {"I32", StoredType::kI32, 4}, {"F32", StoredType::kF32, 4}, {"I64", StoredType::kI64, 8},
};

class Blob {
  public:
    explicit Blob(std::string path) : path_(std::move(path)), fd_(open(path_.c_str(), O_RDONLY)) {
        struct stat status {};
        if (fd_ < 0 || fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
            if (fd_ >= 0) close(fd_);
            throw Error(ErrorCode::kMissingFile, "blob cannot be opened").file(path_);
        }
        bytes_ = static_cast<uint64_t>(status.st_size);
    }
    Blob(Blob&& other) noexcept
        : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), bytes_(other.bytes_) {}
    ~Blob() {
        if (fd_ >= 0) close(fd_);
    }

    const std::string& path() const { return path_; }
    uint64_t bytes() const { return bytes_; }

    void read(uint64_t offset, std::span<std::byte> out) const {
        while (!out.empty()) {
            const ssize_t got = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) throw Error(ErrorCode::kMissingFile, "blob cannot be read").file(path_);
            if (got == 0) throw Error(ErrorCode::kBadContent, "blob ends early").file(path_);
            offset += static_cast<uint64_t>(got);
            out = out.subspan(static_cast<size_t>(got));
        }
    }

  private:
    std::string path_;
    int fd_ = -1;
    uint64_t bytes_ = 0;
};

class TextBox final : public Checkpoint {
  public:
    TextBox(const std::string& folder, bool truthful) : header_(folder + "/" + kHeader) {
        const std::string text = read_header();
        std::istringstream lines(text);
        std::string line;
        if (!std::getline(lines, line) || line != "TBOX 1") fail("TBOX 1", line);
        while (std::getline(lines, line)) {
            std::istringstream words(line);
            std::string kind;
            words >> kind;
            if (kind == "blob")
                add_blob(folder, words);
            else if (kind == "tensor")
                add_tensor(words, line);
            else
                fail("blob or tensor", line);
        }
        uint64_t hash = 0xcbf29ce484222325u;
        for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
        for (const Blob& blob : blobs_) files_.push_back({blob.path(), blob.bytes(), hash});
        const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
        std::sort(tensors_.begin(), tensors_.end(), by_name);
        for (size_t i = 1; i < tensors_.size(); ++i)
            if (tensors_[i - 1].name == tensors_[i].name) fail("one of a name", tensors_[i].name);
        if (!truthful && !tensors_.empty()) tensors_.back().offset += uint64_t{1} << 40;
    }

    const std::vector<CheckpointFile>& files() const override { return files_; }
    const std::vector<StoredTensor>& tensors() const override { return tensors_; }
    const StoredTensor* find(std::string_view name) const override {
        const auto at =
            std::lower_bound(tensors_.begin(), tensors_.end(), name,
                             [](const StoredTensor& t, std::string_view n) { return t.name < n; });
        return at != tensors_.end() && at->name == name ? &*at : nullptr;
    }
    std::optional<std::string> metadata(std::string_view) const override { return std::nullopt; }
    void read(int file, uint64_t offset, std::span<std::byte> out) const override {
        blobs_.at(static_cast<size_t>(file)).read(offset, out);
        counters_.bytes += out.size();
        ++counters_.calls;
    }
    const ReadCounters& counters() const override { return counters_; }

  private:
    [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
        throw Error(ErrorCode::kBadContent, "TBOX header is wrong")
            .file(header_)
            .expected(expected)
            .found(found.substr(0, 80));
    }

    std::string read_header() const {
        const Blob file(header_);
        if (file.bytes() > kMostHeaderBytes)
            fail("a header", std::to_string(file.bytes()) + " bytes");
        std::string text(file.bytes(), '\0');
        file.read(0, std::as_writable_bytes(std::span(text)));
        return text;
    }

    void add_blob(const std::string& folder, std::istringstream& words) {
        std::string name;
        words >> name;
        if (name.empty() || name.find('/') != name.npos) fail("the name of a blob", name);
        blobs_.emplace_back(folder + "/" + name);
    }

    uint64_t number(std::string_view digits, uint64_t below, const std::string& line) const {
        uint64_t value = 0;
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (error != std::errc() || end != digits.data() + digits.size() || value >= below)
            fail("numbers in their range", line);
        return value;
    }

    void add_tensor(std::istringstream& words, const std::string& line) {
        std::string name, type, shape, blob, offset, more;
        if (!(words >> name >> type >> shape >> blob >> offset) || words >> more)
            fail("tensor NAME TYPE SHAPE BLOB OFFSET", line);
        const auto known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                        [&](const TypeName& t) { return type == t.name; });
        if (known == std::end(kTypes)) fail("a type", line);
        StoredTensor t;
        t.name = name;
        t.type = known->type;
        t.bytes = known->bytes;
        if (shape.back() == 'x') fail("a shape", line);
        std::istringstream axes(shape == "-" ? "" : shape);
        for (std::string axis; std::getline(axes, axis, 'x');) {
            const uint64_t extent = number(axis, uint64_t{1} << 40, line);
            t.shape.push_back(static_cast<int64_t>(extent));
            if (__builtin_mul_overflow(t.bytes, extent, &t.bytes)) fail("a shape", line);
        }
        t.file = static_cast<int>(number(blob, blobs_.size(), line));
        const uint64_t size = blobs_[static_cast<size_t>(t.file)].bytes();
        t.offset = number(offset, size + 1, line);
        if (t.bytes > size - t.offset) fail("a tensor inside its blob", line);
        tensors_.push_back(std::move(t));
    }

    std::string header_;
    std::vector<Blob> blobs_;
    std::vector<CheckpointFile> files_;
    std::vector<StoredTensor> tensors_;
    mutable ReadCounters counters_;
};

bool claims(const std::string& path) {
    std::error_code none;
    return std::filesystem::exists(path + "/" + kHeader, none);
}

}  // namespace

CONCLAVE_PLUGIN("tbox", "0.9", "checkpoints in text boxes; for tests") {
    plugin.add_reader({"tbox", claims, [](const std::string& path) {
                           return std::make_shared<const TextBox>(path, true);
                       }});
    plugin.add_reader(
        {"tbox-untrue", [](const std::string&) { return false; },
         [](const std::string& path) { return std::make_shared<const TextBox>(path, false); }});
}
