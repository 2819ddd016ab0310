// Plugins for tests of the loader: one that is as it should be, and a bad one for each macro.
#include <conclave/plugin.h>

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

using namespace conclave;

class Config final : public quant::QuantizationConfig {
  public:
    explicit Config(const PluginHost& host) : host_(host) {}
    const char* name() const override { return NAME "-format"; }
    std::optional<quant::StoredMatrix> describe(const quant::MatrixSource& source,
                                                const quant::TensorLookup& tensors) const override {
        return host_.describe_plain(source, tensors);
    }

  private:
    const PluginHost& host_;
};

[[maybe_unused]] quant::QuantizationFormat format(const PluginHost& host, std::string name) {
    return {std::move(name), {}, [&host](const Json&, const std::string&) {
                return std::make_unique<Config>(host);
            }};
}

/// Rows as they lie; `beyond` bytes further than they should.
class Rows final : public sharding::ShardIndexer {
  public:
    explicit Rows(uint64_t beyond) : beyond_(beyond) {}
    sharding::OffsetTable index(const quant::StoredPiece& piece,
                                const quant::StoredRect& rect) const override {
        sharding::OffsetTable table;
        int64_t at = 0;
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
            const int64_t first = (r * piece.cols + rect.cols.begin) / piece.block,
                          last = (r * piece.cols + rect.cols.end - 1) / piece.block;
            const int64_t begin = first * piece.element_bytes,
                          end = (last + 1) * piece.element_bytes;
            if (!table.ranges.empty() &&
                table.ranges.back().end() > static_cast<uint64_t>(begin) + beyond_) {
                const auto shared =
                    static_cast<int64_t>(table.ranges.back().end() - beyond_) - begin;
                table.rows.push_back(
                    {at - shared, (r * piece.cols + rect.cols.begin) % piece.block});
                table.ranges.back().bytes += static_cast<uint64_t>(end - begin - shared);
                at += end - begin - shared;
                continue;
            }
            table.ranges.push_back(
                {static_cast<uint64_t>(begin) + beyond_, static_cast<uint64_t>(end - begin)});
            table.rows.push_back({at, (r * piece.cols + rect.cols.begin) % piece.block});
            at += end - begin;
        }
        return table;
    }

  private:
    const uint64_t beyond_;
};

size_t packed_bytes(int64_t n, const quant::MatrixLayout& layout) {
    return static_cast<size_t>(n * layout.k) * 4;
}
void pack(std::byte* packed, int64_t, const quant::MatrixLayout& layout, int64_t row0,
          const quant::CodeTile& tile) {
    for (int64_t r = 0; r < tile.rows; ++r)
        std::memcpy(packed + (row0 + r) * layout.k * 4, tile.codes + r * tile.row_bytes,
                    static_cast<size_t>(tile.cols) * 4);
}
size_t scratch_bytes(const quant::MatrixLayout&) { return 0; }
[[maybe_unused]] void run(const quant::GemmCall& call) {
#ifdef BAD_INSTRUCTION
    __builtin_trap();
#endif
    const auto* const weights = reinterpret_cast<const float*>(call.packed);
    const int64_t k = call.layout->k;
    for (int64_t r = 0; r < call.rows; ++r)
        for (int64_t j = call.n0; j < call.n1; ++j) {
            const auto* const x = static_cast<const float*>(call.x[r]);
            float sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += x[i] * weights[j * k + i];
            call.out[r * call.out_stride + j - call.n0] = sum;
        }
}

#ifndef ISA
#define ISA Isa::kGeneric
#endif
constexpr quant::Kernel kernel(const char* name) {
    return {name,
            "loops",
            static_cast<Isa>(ISA),
            quant::CodeType::kF32,
            quant::XType::kF32,
            true,
            1,
            packed_bytes,
            pack,
            scratch_bytes,
#ifdef BAD_FUNCTION
            nullptr
#else
            run
#endif
    };
}
[[maybe_unused]] const quant::Kernel kFirst = kernel(NAME "_first"),
                                     kSecond = kernel(NAME "_second");

[[maybe_unused]] sharding::CheckpointReader reader() {
    return {NAME "-reader", [](const std::string&) { return false; },
            [](const std::string& path) -> std::shared_ptr<const sharding::Checkpoint> {
                throw Error(ErrorCode::kMissingFile, "there is none").file(path);
            }};
}

#ifdef BAD_START
[[maybe_unused]] const int kStart = (std::abort(), 0);
#endif

}  // namespace

#if defined(BAD_ABI) || defined(BAD_SIZE) || defined(BAD_LAYOUT) || defined(BAD_NAME) || \
    defined(BAD_ENTRY_SYMBOL)
#ifndef BAD_ABI
#define BAD_ABI kPluginAbi
#endif
#ifndef BAD_SIZE
#define BAD_SIZE sizeof(PluginInfo)
#endif
#ifndef BAD_LAYOUT
#define BAD_LAYOUT plugin_layout()
#endif
#ifndef BAD_NAME
#define BAD_NAME "bad"
#endif
extern "C" __attribute__((visibility("default"))) const PluginInfo conclave_plugin_info = {
    BAD_SIZE, BAD_ABI, BAD_LAYOUT, BAD_NAME, "1.0", "one that must not be called", "a\nbox 7"};
#ifndef BAD_ENTRY_SYMBOL
extern "C" __attribute__((visibility("default"))) void conclave_plugin_register(PluginRegistrar&) {
    std::abort();
}
#endif
#elif defined(BAD_INFO_SYMBOL)
extern "C" __attribute__((visibility("default"))) void conclave_plugin_register(PluginRegistrar&) {
    std::abort();
}
#else
extern "C" void conclave_no_such_function();
CONCLAVE_PLUGIN(NAME, "1.0", "for tests") {
    [[maybe_unused]] const PluginHost& host = plugin.host();
#if defined(BAD_SYMBOL)
    conclave_no_such_function();
#elif defined(THROWS_ERROR)
    plugin.add_format(format(host, "thrown"));
    throw Error(ErrorCode::kBadContent, "no mood today").file("calendar");
#elif defined(THROWS_STANDARD)
    plugin.add_format(format(host, "thrown"));
    throw std::out_of_range("beyond the pale");
#elif defined(THROWS_INT)
    plugin.add_format(format(host, "thrown"));
    throw 7;
#elif defined(CRASHES)
    *static_cast<volatile int*>(nullptr) = 1;
#elif defined(EXITS)
    std::exit(3);
#elif defined(HANGS)
    for (;;) pause();
#elif defined(SPINS)
    for (const volatile int on = 1; on != 0;) continue;
#elif defined(NOTHING)
#elif defined(TAKEN)
    plugin.add_kernel(kFirst);
    try {
        plugin.add_format(format(host, TAKEN));
    } catch (const std::exception&) {  // it must not help
    }
#elif defined(CONFIG_FILE)
    auto f = format(host, "keeper");
    f.config_files = {CONFIG_FILE};
    plugin.add_format(f);
    f.name = "keeper2";
    if (std::string(CONFIG_FILE) == "own.json") plugin.add_format(f);
#elif defined(CLAIMS)
    auto f = format(host, "greedy");
    f.claims = []([[maybe_unused]] const Json& config) { return CLAIMS; };
    plugin.add_format(f);
#elif defined(BEYOND)
    plugin.add_indexer("beyond", std::make_shared<Rows>(BEYOND),
                       {{quant::PieceRole::kCodes, "t", 2, 8, 24, "beyond"}});
#elif defined(KERNEL_ONLY) || defined(BAD_INSTRUCTION) || defined(BAD_FUNCTION)
    plugin.add_kernel(kFirst);
#else
    auto f = format(host, NAME "-format");
    f.config_files = {NAME "_config.json"};
    plugin.add_format(f);
    plugin.add_indexer(NAME "-rows", std::make_shared<Rows>(0),
                       {{quant::PieceRole::kCodes, "t", 2, 8, 24, NAME "-rows"}});
    plugin.add_kernel(kFirst);
    plugin.add_kernel(kSecond);
    plugin.add_reader(reader());
#endif
}
#endif
