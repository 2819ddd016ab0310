#include "runtime/api/c/handles.h"

#include <mutex>
#include <string>
#include <unordered_map>

#include "runtime/comm/communicator.h"

namespace conclave::c_api {
namespace {

// 16 bits of mark, 4 of kind, 44 of serial number. With this mark no handle is an address that a
// user's program could have: those have equal bits 47 .. 63.
constexpr uint64_t kMark = 0xc0c1;
constexpr int kMarkShift = 48, kKindShift = 44;
constexpr uint64_t kSerialMask = (uint64_t{1} << kKindShift) - 1;

const char* kind_name(Kind kind) {
    switch (kind) {
        case Kind::kComm:
            return "conclave_comm";
        case Kind::kPlugins:
            return "conclave_plugins";
        case Kind::kEngine:
            return "conclave_engine";
        case Kind::kTokenizer:
            return "conclave_tokenizer";
    }
    return nullptr;
}

/// State of the process, as nothing else but the order of loading plugins is: a host passes nothing
/// but the handle, and a table in an object of the host's would need a handle of its own.
struct Table {
    std::mutex mutex;
    uint64_t last_serial = 0;
    std::unordered_map<uint64_t, std::shared_ptr<void>> objects;
};

Table& table() {
    // Never destroyed: what a host has not destroyed when it exits is not torn down behind its
    // back, with MPI finalised and threads gone.
    static Table& only = *new Table;
    return only;
}

std::string not_a_handle(uint64_t value, Kind wanted, uint64_t last_serial) {
    const std::string name = kind_name(wanted);
    if (value == 0) return "the " + name + " is null";
    const char* const found = kind_name(static_cast<Kind>((value >> kKindShift) & 0xf));
    const uint64_t serial = value & kSerialMask;
    if (value >> kMarkShift != kMark || !found || serial == 0 || serial > last_serial)
        return "not a " + name + ", nor any other handle";
    if (found != name) return "not a " + name + " but a " + found;
    return "the " + name + " was destroyed";
}

}  // namespace

uint64_t add_handle(Kind kind, std::shared_ptr<void> object) {
    Table& t = table();
    const std::lock_guard lock(t.mutex);
    const uint64_t value =
        kMark << kMarkShift | static_cast<uint64_t>(kind) << kKindShift | (t.last_serial + 1);
    t.objects.emplace(value, std::move(object));
    ++t.last_serial;
    return value;
}

std::shared_ptr<void> find_handle(uint64_t value, Kind kind) {
    Table& t = table();
    const std::lock_guard lock(t.mutex);
    const auto at = t.objects.find(value);
    if (at == t.objects.end() || static_cast<Kind>((value >> kKindShift) & 0xf) != kind)
        throw failure(CONCLAVE_ERROR_HANDLE, not_a_handle(value, kind, t.last_serial));
    return at->second;
}

void remove_handle(uint64_t value) {
    std::shared_ptr<void> object;  // destroyed after the lock, for that may take long
    Table& t = table();
    const std::lock_guard lock(t.mutex);
    if (const auto at = t.objects.find(value); at != t.objects.end()) {
        object = std::move(at->second);
        t.objects.erase(at);
    }
}

Call::Call(RankComm& ranks) : ranks_(ranks) {
    if (ranks_.busy.exchange(true, std::memory_order_acquire))
        throw failure(CONCLAVE_ERROR_BUSY,
                      "another call on this engine or communicator is under way");
    try {
        ranks_.comm.impl()->check_thread();
    } catch (...) {
        ranks_.busy.store(false, std::memory_order_release);
        throw;
    }
}

Call::~Call() { ranks_.busy.store(false, std::memory_order_release); }

}  // namespace conclave::c_api
