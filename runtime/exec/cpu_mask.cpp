#include "runtime/exec/cpu_mask.h"

#include <sched.h>

#include <climits>
#include <cstddef>

namespace conclave::exec {
namespace {

constexpr size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;
constexpr size_t kMaxWords = 65536 / kWordBits;  // far above any kernel's NR_CPUS (8192)

}  // namespace

CpuMask::CpuMask(const std::vector<int>& cpus) {
    for (const int c : cpus) {
        const size_t word = static_cast<size_t>(c) / kWordBits;
        if (word >= words_.size()) words_.resize(word + 1);
        words_[word] |= 1UL << (static_cast<size_t>(c) % kWordBits);
    }
}

CpuMask CpuMask::of_thread(pid_t tid) {
    CpuMask mask;
    // The kernel refuses a buffer smaller than its own mask: grow until it fits.
    for (size_t words = 16; words <= kMaxWords; words *= 2) {
        mask.words_.assign(words, 0);
        if (sched_getaffinity(tid, words * sizeof(unsigned long),
                              reinterpret_cast<cpu_set_t*>(mask.words_.data())) != 0)
            continue;
        while (!mask.words_.empty() && mask.words_.back() == 0) mask.words_.pop_back();
        return mask;
    }
    return {};
}

std::vector<int> CpuMask::cpus() const {
    std::vector<int> cpus;
    for (size_t bit = 0; bit < words_.size() * kWordBits; ++bit)
        if (words_[bit / kWordBits] >> (bit % kWordBits) & 1) cpus.push_back(static_cast<int>(bit));
    return cpus;
}

bool CpuMask::within(const CpuMask& other) const {
    for (size_t w = 0; w < words_.size(); ++w)
        if ((words_[w] & ~(w < other.words_.size() ? other.words_[w] : 0)) != 0) return false;
    return true;
}

bool CpuMask::apply(pid_t tid) const {
    return !empty() && sched_setaffinity(tid, words_.size() * sizeof(unsigned long),
                                         reinterpret_cast<const cpu_set_t*>(words_.data())) == 0;
}

}  // namespace conclave::exec
