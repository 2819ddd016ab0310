// Handles of the C interface. A handle is a number that looks like a pointer: a mark, a kind and a
// serial number that is never given twice. A table of the process says what it stands for, so any
// bit pattern can be told from a handle without being followed.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "runtime/api/c/guard.h"
#include "runtime/api/conclave.hpp"

namespace conclave::c_api {

enum class Kind : uint64_t { kComm = 1, kPlugins = 2, kEngine = 3, kTokenizer = 4 };

uint64_t add_handle(Kind kind, std::shared_ptr<void> object);
/// Throws CONCLAVE_ERROR_HANDLE, saying what it is instead, where it is no living handle of `kind`.
std::shared_ptr<void> find_handle(uint64_t value, Kind kind);
void remove_handle(uint64_t value);

/// `Object` names its handle and kind: `using Handle = conclave_engine; static constexpr Kind
/// kKind`.
template <class Object>
typename Object::Handle* open_handle(std::shared_ptr<Object> object) {
    static_assert(sizeof(void*) == sizeof(uint64_t));
    return reinterpret_cast<typename Object::Handle*>(add_handle(Object::kKind, std::move(object)));
}
template <class Object>
std::shared_ptr<Object> object_of(const typename Object::Handle* handle) {
    return std::static_pointer_cast<Object>(
        find_handle(reinterpret_cast<uint64_t>(handle), Object::kKind));
}
template <class Object>
void close_handle(typename Object::Handle* handle) {
    remove_handle(reinterpret_cast<uint64_t>(handle));
}

/// A rank's end of a communicator, shared by its handle and the engines on it.
struct RankComm {
    using Handle = conclave_comm;
    static constexpr Kind kKind = Kind::kComm;

    explicit RankComm(Comm c) : comm(std::move(c)) {}

    const Comm comm;
    std::atomic<bool> busy{false};
};

/// A call on a communicator or on an engine of it, while it lives: the only one. Throws
/// CONCLAVE_ERROR_BUSY where there is another, from a second thread or around this one, and what
/// Communicator::check_thread() throws (also after MPI_Finalize: then it must not ask MPI).
class Call {
  public:
    explicit Call(RankComm& ranks);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

  private:
    RankComm& ranks_;
};

/// What a function that makes a communicator gives out.
inline conclave_comm* new_comm_handle(Comm comm) {
    return open_handle(std::make_shared<RankComm>(std::move(comm)));
}

}  // namespace conclave::c_api
