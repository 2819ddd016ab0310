#include "runtime/comm/communicator.h"

#include <algorithm>
#include <set>
#include <vector>

#include "runtime/comm/error_text.h"
#include "runtime/comm/split_group.h"

namespace conclave::comm {

void Communicator::poll_abort() {
    if (!abort_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_poll_) return;
    next_poll_ = now + std::chrono::milliseconds(20);
    bool stop = false;
    try {
        stop = abort_();
    } catch (const Error&) {
        throw;
    } catch (const std::exception& e) {
        throw Error(ErrorCode::kHost, std::string("the host's abort callback threw: ") + e.what());
    } catch (...) {
        throw Error(ErrorCode::kHost, "the host's abort callback threw");
    }
    if (stop) throw Error(ErrorCode::kCancelled, "the host asked to stop");
}

void agree(Communicator& comm, const Error* error) {
    const auto ranks = static_cast<size_t>(comm.size());
    const uint8_t failed = error != nullptr;
    std::vector<uint8_t> all(ranks);
    comm.all_gather(&failed, all.data(), std::vector<size_t>(ranks, 1));

    const auto first = std::find(all.begin(), all.end(), uint8_t{1});
    if (first == all.end()) return;
    const int root = static_cast<int>(first - all.begin());
    ErrorText text;
    if (comm.rank() == root) text = pack_error(*error, root);
    comm.broadcast(&text, sizeof text, root);
    throw unpack_error(text);
}

SplitGroup split_group(Communicator& comm, int color, int key) {
    struct Vote {
        int color, key;
    };
    const auto ranks = static_cast<size_t>(comm.size());
    const Vote mine{color, key};
    std::vector<Vote> votes(ranks);
    comm.all_gather(&mine, votes.data(), std::vector<size_t>(ranks, sizeof(Vote)));

    SplitGroup group;
    std::set<int> lower;
    for (int r = 0; r < comm.size(); ++r) {
        const int its_color = votes[static_cast<size_t>(r)].color;
        if (its_color == color) group.members.push_back(r);
        if (its_color < color) lower.insert(its_color);
    }
    group.index = static_cast<int>(lower.size());
    std::stable_sort(group.members.begin(), group.members.end(), [&](int a, int b) {
        return votes[static_cast<size_t>(a)].key < votes[static_cast<size_t>(b)].key;
    });
    group.position = static_cast<int>(
        std::find(group.members.begin(), group.members.end(), comm.rank()) - group.members.begin());
    return group;
}

}  // namespace conclave::comm
