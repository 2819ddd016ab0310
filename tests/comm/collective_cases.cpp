#include "tests/comm/collective_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace conclave::test {
namespace {

using comm::Communicator;

size_t ranks_of(const Communicator& comm) { return static_cast<size_t>(comm.size()); }

// 0, odd ones, and around the slots of a segment (128 KiB, or a forced 64 bytes) and the thresholds
// between algorithms (16 and 64 KiB).
constexpr size_t kCounts[] = {0, 1, 3, 15, 16, 17, 1000, 4096, 4099, 16387, 32768, 40001, 70001};

std::vector<float> values_of(int rank, size_t count, uint32_t seed) {
    std::mt19937 random(seed * 977 + static_cast<uint32_t>(rank));
    std::uniform_real_distribution<float> magnitude(-20, 20);
    std::vector<float> values(count);
    for (float& v : values) v = std::ldexp(magnitude(random), static_cast<int>(random() % 12));
    return values;
}

/// Whether all ranks hold the same bytes, through a gather of everything to everyone.
bool same_everywhere(Communicator& comm, const void* data, size_t bytes) {
    std::vector<std::byte> all(bytes * ranks_of(comm), std::byte{0x5a});
    comm.all_gather(data, all.data(), std::vector<size_t>(ranks_of(comm), bytes));
    for (size_t r = 0; r < ranks_of(comm); ++r)
        if (bytes > 0 && std::memcmp(all.data() + r * bytes, data, bytes) != 0) return false;
    return true;
}

bool same_everywhere(Communicator& comm, const std::string& text) {
    std::string padded = text;
    padded.resize(4096);
    return same_everywhere(comm, padded.data(), padded.size());
}

std::string host_of(Communicator& comm, int rank) {
    char name[256] = {};
    comm.host().copy(name, sizeof name - 1);
    comm.broadcast(name, sizeof name, rank);
    return name;
}

/// The text that `body` throws; all ranks must get the same.
template <class Body>
std::string thrown_text(ErrorCode code, Body&& body) {
    try {
        body();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "nothing";
}

void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

}  // namespace

void check_identity(Communicator& comm) {
    const int mine[] = {comm.rank(), comm.local_rank(), comm.local_size(), comm.hosts()};
    std::vector<int> all(4 * ranks_of(comm), -1);
    comm.all_gather(mine, all.data(), std::vector<size_t>(ranks_of(comm), sizeof mine));
    int leaders = 0;
    for (int r = 0; r < comm.size(); ++r) {
        const int* of = all.data() + 4 * r;
        EXPECT_EQ(of[0], r);
        EXPECT_GE(of[1], 0);
        EXPECT_LT(of[1], of[2]);
        EXPECT_EQ(of[3], comm.hosts());
        leaders += of[1] == 0;
    }
    EXPECT_EQ(leaders, comm.hosts());
    EXPECT_FALSE(comm.host().empty());
    comm.barrier();
}

void check_all_reduce_sum(Communicator& comm) {
    uint32_t seed = 1;
    for (const size_t count : kCounts) {
        std::vector<float> sum = values_of(comm.rank(), count, ++seed);
        comm.all_reduce_sum(sum.data(), count);
        ASSERT_TRUE(same_everywhere(comm, sum.data(), count * sizeof(float))) << count;

        std::vector<double> exact(count), size(count);
        std::vector<float> in_order(count);
        for (int r = 0; r < comm.size(); ++r) {
            const std::vector<float> its = values_of(r, count, seed);
            for (size_t i = 0; i < count; ++i) {
                exact[i] += its[i];
                size[i] += std::abs(its[i]);
                in_order[i] = r == 0 ? its[i] : in_order[i] + its[i];
            }
        }
        for (size_t i = 0; i < count; ++i) {
            ASSERT_NEAR(sum[i], exact[i], 1e-6 * comm.size() * size[i]) << i << " of " << count;
            if (comm.hosts() == 1) {
                ASSERT_EQ(sum[i], in_order[i]) << i << " of " << count;
            }
        }
    }
}

void check_all_reduce_max(Communicator& comm) {
    uint32_t seed = 100;
    for (const size_t count : kCounts) {
        std::vector<float> max = values_of(comm.rank(), count, ++seed);
        std::vector<float> expected = values_of(0, count, seed);
        for (int r = 1; r < comm.size(); ++r) {
            const std::vector<float> its = values_of(r, count, seed);
            for (size_t i = 0; i < count; ++i) expected[i] = std::max(expected[i], its[i]);
        }
        comm.all_reduce_max(max.data(), count);
        for (size_t i = 0; i < count; ++i) ASSERT_EQ(max[i], expected[i]) << i << " of " << count;
    }
    // A NaN on any one rank is seen by all; infinities compare.
    for (int r = 0; r < comm.size(); ++r) {
        const float inf = std::numeric_limits<float>::infinity();
        float max[] = {-inf, 1, -inf};
        if (comm.rank() == r) {
            max[0] = std::numeric_limits<float>::quiet_NaN();
            max[1] = inf;
        }
        comm.all_reduce_max(max, 3);
        EXPECT_TRUE(std::isnan(max[0]));
        EXPECT_EQ(max[1], inf);
        EXPECT_EQ(max[2], -inf);
    }
}

void check_broadcast(Communicator& comm) {
    uint32_t seed = 200;
    for (int root = 0; root < comm.size(); ++root)
        for (const size_t bytes : {0, 1, 63, 64, 65, 5000, 300001}) {
            std::mt19937 random(++seed);
            std::vector<uint8_t> expected(bytes + 1);
            for (uint8_t& b : expected) b = static_cast<uint8_t>(random());
            std::vector<uint8_t> data(bytes + 1, 0xaa);
            if (comm.rank() == root) data = expected;
            expected[bytes] = data[bytes];  // beyond the end: untouched
            comm.broadcast(data.data(), bytes, root);
            ASSERT_EQ(data, expected) << bytes << " bytes from " << root;
        }
}

void check_all_gather(Communicator& comm) {
    for (uint32_t seed = 300; seed < 330; ++seed) {
        std::mt19937 random(seed);  // the same on all ranks
        const size_t most = seed % 3 == 0 ? 10 : seed % 3 == 1 ? 3000 : 300000;
        std::vector<size_t> bytes(ranks_of(comm));
        for (size_t& b : bytes) b = random() % 4 == 0 ? 0 : random() % most;
        std::vector<uint8_t> expected;
        size_t own_at = 0;
        for (size_t r = 0; r < bytes.size(); ++r) {
            if (static_cast<int>(r) == comm.rank()) own_at = expected.size();
            for (size_t i = 0; i < bytes[r]; ++i)
                expected.push_back(static_cast<uint8_t>(random() >> 8));
        }
        expected.push_back(0xaa);
        std::vector<uint8_t> recv(expected.size(), 0xaa);
        const size_t own = bytes[static_cast<size_t>(comm.rank())];
        const auto* own_data = expected.data() + own_at;
        if (seed % 2 == 0) {  // in place
            std::copy_n(own_data, own, recv.data() + own_at);
            comm.all_gather(recv.data() + own_at, recv.data(), bytes);
        } else {
            const std::vector<uint8_t> send(own_data, own_data + own);
            comm.all_gather(send.data(), recv.data(), bytes);
        }
        ASSERT_EQ(recv, expected) << "seed " << seed;
    }
}

void check_split(Communicator& comm) {
    // Two or three groups, in reversed order, that work at the same time at their own pace.
    const int color = comm.rank() % 3 == 0 ? 7 : comm.rank() % 2 == 0 ? -5 : 1000000;
    const auto part = comm.split(color, -comm.rank());
    int members = 0, after = 0;
    float sum_of_ranks = 0;
    for (int r = 0; r < comm.size(); ++r) {
        const int its = r % 3 == 0 ? 7 : r % 2 == 0 ? -5 : 1000000;
        if (its != color) continue;
        ++members;
        after += r > comm.rank();
        sum_of_ranks += static_cast<float>(r);
    }
    ASSERT_EQ(part->size(), members);
    ASSERT_EQ(part->rank(), after);
    EXPECT_STREQ(part->backend(), comm.backend());
    for (int round = 0; round < 20 + color % 10; ++round) {
        std::vector<float> mine(100, static_cast<float>(comm.rank()));
        part->all_reduce_sum(mine.data(), mine.size());
        ASSERT_EQ(mine, std::vector<float>(100, sum_of_ranks));
    }
    // Parent and child in turn, and a child of the child.
    float one = 1;
    comm.all_reduce_sum(&one, 1);
    ASSERT_EQ(one, static_cast<float>(comm.size()));
    const auto alone = part->split(part->rank(), 0);
    ASSERT_EQ(alone->size(), 1);
    alone->all_reduce_sum(&one, 1);
    ASSERT_EQ(one, static_cast<float>(comm.size()));
    comm.barrier();
}

void check_agree(Communicator& comm) {
    comm::agree(comm, nullptr);
    const int last = comm.size() - 1;
    for (int first = 0; first < comm.size(); ++first) {
        // `first` and the last rank fail, each with its own words.
        Error error(ErrorCode::kBadContent, "words of " + std::to_string(comm.rank()));
        error.file("model.safetensors");
        const bool fails = comm.rank() == first || comm.rank() == last;
        const std::string text = thrown_text(ErrorCode::kBadContent,
                                             [&] { comm::agree(comm, fails ? &error : nullptr); });
        const std::string number = std::to_string(first);
        EXPECT_EQ(text, "words of " + number + ": file model.safetensors, rank " + number);
    }
    // A rank that is named stays named; what is too long is cut between characters.
    Error named(ErrorCode::kResource, "who");
    named.rank(77);
    EXPECT_EQ(thrown_text(ErrorCode::kResource, [&] { comm::agree(comm, &named); }),
              "who: rank 77");
    std::string long_text = "x";
    while (long_text.size() < 10000) long_text += "\u00e9";
    const Error too_long(ErrorCode::kResource, long_text);
    const std::string cut =
        thrown_text(ErrorCode::kResource, [&] { comm::agree(comm, &too_long); });
    ASSERT_GT(cut.size(), 1000u);
    ASSERT_LE(cut.size(), 4096u);
    EXPECT_EQ(cut.substr(cut.size() - 5), "\u00e9...");
    EXPECT_EQ(cut.compare(0, cut.size() - 3, long_text, 0, cut.size() - 3), 0);
    comm::agree(comm, nullptr);
}

void check_together(Communicator& comm) {
    int ran = 0;
    comm::together(comm, [&] { ++ran; });
    EXPECT_EQ(ran, 1);
    const int last = comm.size() - 1;
    const auto by_last = [&](auto&& thrower) {
        return [&comm, last, thrower] {
            comm::together(comm, [&] {
                if (comm.rank() == last) thrower();
            });
        };
    };
    expect_contains(
        thrown_text(ErrorCode::kInternal, by_last([] { throw std::runtime_error("odd end"); })),
        "odd end");
    expect_contains(thrown_text(ErrorCode::kResource, by_last([] { throw std::bad_alloc(); })),
                    "rank " + std::to_string(last));
    // What has been agreed in a part of the ranks keeps its rank in the whole.
    const auto half = comm.split(comm.rank() % 2, 0);
    const Error error(ErrorCode::kUsage, "half");
    const std::string text = thrown_text(
        ErrorCode::kUsage, [&] { comm::together(comm, [&] { comm::agree(*half, &error); }); });
    EXPECT_EQ(text, "half: rank 0");
}

void check_poison(Communicator& comm) {
    for (int culprit = 0; culprit < comm.size(); ++culprit)
        for (int operation = 0; operation < 4; ++operation) {
            const auto victim = comm.split(0, comm.rank());
            comm.barrier();
            std::vector<float> data(50000, 1);
            const auto collective = [&] {
                const std::vector<size_t> bytes(ranks_of(comm), 1000);
                std::vector<std::byte> recv(1000 * ranks_of(comm));
                if (operation == 0) victim->barrier();
                if (operation == 1) victim->all_reduce_sum(data.data(), data.size());
                if (operation == 2) victim->all_gather(data.data(), recv.data(), bytes);
                if (operation == 3)
                    victim->broadcast(data.data(), data.size() * sizeof(float), culprit);
            };
            if (comm.rank() == culprit)
                victim->poison(Error(ErrorCode::kMissingFile, "gone").file("w.safetensors"));
            for (int again = 0; again < 2; ++again)
                EXPECT_EQ(thrown_text(ErrorCode::kMissingFile, collective),
                          "gone: file w.safetensors, rank " + std::to_string(culprit));
            // agree() has no other word either, not even for a rank with its own trouble.
            const Error other(ErrorCode::kUsage, "another one");
            expect_contains(
                thrown_text(ErrorCode::kMissingFile, [&] { comm::agree(*victim, &other); }),
                "gone");
            if (comm.rank() == culprit)  // the first word stays
                victim->poison(Error(ErrorCode::kUsage, "too late"));
            expect_contains(thrown_text(ErrorCode::kMissingFile, collective), "gone");
            comm.barrier();  // the parent is well
        }
}

void check_deadline(Communicator& comm) {
    // A missing rank is named exactly by its own host; the others wait a quarter longer for that
    // word (a second at most), which a crowded machine may spend elsewhere: so more time there.
    const bool many_hosts = comm.hosts() > 1;
    for (int late = 0; late < comm.size() && comm.size() > 1; late += many_hosts ? 2 : 1) {
        const auto victim = comm.split(0, comm.rank());
        victim->set_deadline(many_hosts ? 1.5 : 0.3);
        victim->set_phase(("step 12 layer " + std::to_string(comm.rank())).c_str());
        comm.barrier();
        float value = 0;
        const auto wait = [&] { victim->all_reduce_sum(&value, 1); };
        std::string text;
        if (comm.rank() != late) text = thrown_text(ErrorCode::kComm, wait);
        comm.barrier();
        if (comm.rank() == late) text = thrown_text(ErrorCode::kComm, wait);
        expect_contains(text, many_hosts ? "deadline of 1.5 s passed in all_reduce_sum: missing "
                                         : "deadline of 0.3 s passed in all_reduce_sum: missing ");
        expect_contains(text, "rank " + std::to_string(late) + " (host " + host_of(comm, late));
        if (many_hosts) continue;
        expect_contains(text, "step 12 layer " + std::to_string(late) + "\"");
        EXPECT_TRUE(same_everywhere(comm, text)) << text;
    }
}

void check_departure(Communicator& comm) {
    if (comm.size() == 1) return;
    const int leaver = comm.size() / 2;
    float lonely = comm.rank() == leaver && comm.local_size() == 1;
    comm.all_reduce_max(&lonely, 1);
    auto victim = comm.split(0, comm.rank());
    victim->set_phase("on my way");
    if (comm.rank() == leaver) {
        victim.reset();
    } else {
        const std::string text = thrown_text(ErrorCode::kComm, [&] { victim->barrier(); });
        expect_contains(text, "left before barrier: missing rank " + std::to_string(leaver) + " (");
        if (lonely == 0) expect_contains(text, "on my way");
    }
    comm.barrier();
}

void check_abort(Communicator& comm) {
    const auto ask = [](ErrorCode code, const char* words, Communicator& victim) {
        float value = 0;
        for (int again = 0; again < 2; ++again)  // it stays poisoned
            expect_contains(thrown_text(code, [&] { victim.all_reduce_sum(&value, 1); }), words);
    };
    // One rank is late, so that the others wait. Other hosts' news come through leaders: with many
    // hosts, it is none of them.
    std::vector<int> local_ranks(ranks_of(comm));
    const int own_local_rank = comm.local_rank();
    comm.all_gather(&own_local_rank, local_ranks.data(),
                    std::vector<size_t>(local_ranks.size(), sizeof own_local_rank));
    int follower = comm.size() - 1;
    while (follower > 0 && local_ranks[static_cast<size_t>(follower)] == 0) --follower;
    const bool can_wait = comm.size() > 1 && follower > 0;
    for (int asked = 0; asked < comm.size() && can_wait; asked += 1 + comm.size() / 4) {
        const int late = comm.hosts() == 1 ? (asked + 1) % comm.size() : follower;
        if (asked == late) continue;
        for (const bool throws : {false, true}) {
            const auto victim = comm.split(0, comm.rank());
            victim->set_deadline(0);
            const auto begun = std::chrono::steady_clock::now();
            if (comm.rank() == asked)
                victim->set_abort([&] {
                    const auto spent = std::chrono::steady_clock::now() - begun;
                    if (spent < std::chrono::milliseconds(50)) return false;
                    if (throws) throw std::runtime_error("fell over");
                    return true;
                });
            const auto wait = [&] {
                if (throws)
                    ask(ErrorCode::kHost, "the host's abort callback threw: fell over", *victim);
                else
                    ask(ErrorCode::kCancelled, "the host asked to stop", *victim);
            };
            if (comm.rank() != late) wait();
            comm.barrier();
            if (comm.rank() == late) wait();
            comm.barrier();
        }
    }
    // Nobody waits: who computes for long asks by itself.
    const auto alone = comm.split(comm.rank(), 0);
    alone->poll_abort();
    int polls = 0;
    alone->set_abort([&] { return ++polls == 2; });
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_EQ(thrown_text(ErrorCode::kCancelled,
                          [&] {
                              for (;;) alone->poll_abort();
                          }),
              "the host asked to stop");
    EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(20));
    alone->set_abort({});
    alone->poll_abort();
}

void check_groups(Communicator& comm) {
    // Rows, columns and permutations of the ranks, and parts of those, each at its own pace and
    // with sizes of its own, between collectives of all ranks.
    const int n = comm.size();
    std::mt19937 common(static_cast<uint32_t>(77 + n));  // the same on all ranks
    for (int round = 0; round < 6; ++round) {
        const int width = 1 + static_cast<int>(common() % static_cast<uint32_t>(n));
        const bool reversed = common() % 2 == 0;
        const int key = reversed ? -comm.rank() : comm.rank();
        std::vector<std::unique_ptr<Communicator>> parts;
        parts.push_back(comm.split(comm.rank() / width, key));
        parts.push_back(comm.split(comm.rank() % width, -key));
        parts.push_back(parts[0]->split(parts[0]->rank() % 2, 0));
        for (const auto& part : parts) {
            // The rank in `comm` of every member says what it gives.
            std::vector<int> members(ranks_of(*part), -1);
            const int mine = comm.rank();
            part->all_gather(&mine, members.data(),
                             std::vector<size_t>(members.size(), sizeof mine));
            std::mt19937 own(static_cast<uint32_t>(members[0] * 100 + round));  // of the part
            for (uint32_t turn = own() % 7; turn > 0; --turn) {
                const size_t count = own() % 3 == 0 ? 0 : own() % 5000;
                std::vector<float> sum = values_of(mine, count, turn), expected(count);
                for (size_t m = 0; m < members.size(); ++m) {
                    const std::vector<float> its = values_of(members[m], count, turn);
                    for (size_t i = 0; i < count; ++i)
                        expected[i] = m == 0 ? its[i] : expected[i] + its[i];
                }
                part->all_reduce_sum(sum.data(), count);
                if (part->hosts() == 1) {
                    ASSERT_EQ(sum, expected);
                }
                const int root = static_cast<int>(own() % members.size());
                std::vector<int> told(1 + own() % 100, mine);
                part->broadcast(told.data(), told.size() * sizeof(int), root);
                ASSERT_EQ(told, std::vector<int>(told.size(), members[static_cast<size_t>(root)]));
                std::vector<size_t> bytes;
                std::vector<uint8_t> gathered, pieces;
                for (const int member : members) {
                    bytes.push_back(own() % 100);
                    pieces.insert(pieces.end(), bytes.back(), static_cast<uint8_t>(member + 1));
                }
                gathered.assign(pieces.size(), 0xee);
                const std::vector<uint8_t> given(bytes[static_cast<size_t>(part->rank())],
                                                 static_cast<uint8_t>(mine + 1));
                part->all_gather(given.data(), gathered.data(), bytes);
                ASSERT_EQ(gathered, pieces);
                float most = static_cast<float>(mine);
                part->all_reduce_max(&most, 1);
                ASSERT_EQ(most,
                          static_cast<float>(*std::max_element(members.begin(), members.end())));
                part->barrier();
            }
        }
        float one = 1;
        comm.all_reduce_sum(&one, 1);
        ASSERT_EQ(one, static_cast<float>(n));
    }
}

void check_many_small(Communicator& comm) {
    float token = 0;
    const int rounds = comm.size() <= 5 ? 10000 : 2000;  // crowded ranks take turns on the CPUs
    for (int i = 0; i < rounds; ++i) {
        const int root = i % comm.size();
        switch (i % 4) {
            case 0: {
                float sum = static_cast<float>(i % 7);
                comm.all_reduce_sum(&sum, 1);
                ASSERT_EQ(sum, static_cast<float>(i % 7) * static_cast<float>(comm.size()));
                break;
            }
            case 1:
                token = comm.rank() == root ? static_cast<float>(i) : -1;
                comm.broadcast(&token, sizeof token, root);
                ASSERT_EQ(token, static_cast<float>(i));
                break;
            case 2: {
                const int mine = i + comm.rank();
                std::vector<int> all(ranks_of(comm), -1);
                comm.all_gather(&mine, all.data(), std::vector<size_t>(all.size(), sizeof mine));
                for (int r = 0; r < comm.size(); ++r) ASSERT_EQ(all[static_cast<size_t>(r)], i + r);
                break;
            }
            default:
                comm.barrier();
        }
    }
}

void check_stats(Communicator& comm) {
    const comm::CommStats before = comm.stats();
    std::vector<float> data(10);
    comm.all_reduce_sum(data.data(), data.size());
    comm.broadcast(data.data(), 12, 0);
    comm.barrier();
    const comm::CommStats after = comm.stats();
    EXPECT_EQ(after.calls - before.calls, 3u);
    EXPECT_EQ(after.bytes - before.bytes, 52u);
    EXPECT_GT(after.nanoseconds, before.nanoseconds);
}

}  // namespace conclave::test
