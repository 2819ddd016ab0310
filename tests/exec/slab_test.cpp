#include "runtime/exec/slab.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/error.h"

namespace conclave::exec {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

size_t resident_pages(const Slab& slab) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> in_core((slab.bytes() + page - 1) / page);
    EXPECT_EQ(mincore(slab.data(), slab.bytes(), in_core.data()), 0);
    return static_cast<size_t>(
        std::count_if(in_core.begin(), in_core.end(), [](unsigned char c) { return c & 1; }));
}

TEST(Slab, IsAlignedZeroAndWritableToItsLastByte) {
    for (const size_t bytes :
         {size_t{1}, size_t{4097}, 2 * kMiB - 1, 2 * kMiB, 2 * kMiB + 1, 7 * kMiB + 123}) {
        const Slab slab(bytes);
        ASSERT_EQ(slab.bytes(), bytes);
        ASSERT_EQ(reinterpret_cast<uintptr_t>(slab.data()) % (2 * kMiB), 0u);
        ASSERT_TRUE(std::all_of(slab.data(), slab.data() + bytes,
                                [](std::byte b) { return b == std::byte{0}; }));
        std::fill(slab.data(), slab.data() + bytes, std::byte{0xa5});
        ASSERT_EQ(slab.data()[bytes - 1], std::byte{0xa5});
    }
}

TEST(Slab, UntouchedMemoryIsNotResident) {
    const Slab slab(64 * kMiB);
    EXPECT_EQ(resident_pages(slab), 0u);
    slab.data()[10 * kMiB] = std::byte{1};
    EXPECT_GE(resident_pages(slab), 1u);
    EXPECT_LE(resident_pages(slab), 512u);  // one 2 MiB page at most
}

TEST(Slab, MuchMoreThanThereIsIsFineUntilTouched) {
    std::vector<Slab> slabs;
    for (int i = 0; i < 8; ++i) slabs.emplace_back(256 * kMiB);
    for (const Slab& s : slabs) EXPECT_EQ(resident_pages(s), 0u);
}

TEST(Slab, SaysWhichPagesItGot) {
    std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
    std::string text;
    std::getline(in, text);
    const bool transparent = !text.empty() && text.find("[never]") == std::string::npos;
    const Slab slab(4 * kMiB);
    if (slab.pages() != PageKind::kHugeTlb) {
        EXPECT_EQ(slab.pages(), transparent ? PageKind::kTransparent : PageKind::kSmall);
    }
    for (const PageKind kind : {PageKind::kHugeTlb, PageKind::kTransparent, PageKind::kSmall})
        EXPECT_GT(std::string(page_kind_name(kind)).size(), 3u);
}

TEST(Slab, MovesAndReleases) {
    Slab a(3 * kMiB), b;
    EXPECT_EQ(b.data(), nullptr);
    EXPECT_EQ(b.bytes(), 0u);
    std::byte* const data = a.data();
    data[5] = std::byte{9};
    b = std::move(a);
    EXPECT_EQ(a.data(), nullptr);  // NOLINT: moved from, on purpose
    EXPECT_EQ(a.bytes(), 0u);
    EXPECT_EQ(b.data(), data);
    EXPECT_EQ(b.data()[5], std::byte{9});
    Slab c(std::move(b));
    EXPECT_EQ(c.data(), data);
    c = Slab(kMiB);  // what it held is unmapped
    std::vector<unsigned char> in_core(3 * kMiB / 4096);
    if (c.data() != data) {
        EXPECT_EQ(mincore(data, 3 * kMiB, in_core.data()), -1);
    }
    Slab& alias = c;
    c = std::move(alias);
    EXPECT_EQ(c.bytes(), kMiB);
    c.data()[kMiB - 1] = std::byte{1};
    EXPECT_EQ(Slab(0).data(), nullptr);
}

TEST(Slab, ImpossibleSizesNameTheBytes) {
    for (const size_t bytes : {size_t{1} << 60, SIZE_MAX, SIZE_MAX - 2 * kMiB}) {
        try {
            Slab slab(bytes);
            ADD_FAILURE() << bytes;
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kResource);
            EXPECT_NE(std::string(e.what()).find(std::to_string(bytes)), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace conclave::exec
