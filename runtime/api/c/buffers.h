// Where the host wants a list: at most `capacity` entries, and how many there are.
#pragma once
#include <algorithm>
#include <span>
#include <string_view>

#include "runtime/api/c/guard.h"

namespace conclave::c_api {

template <class T>
class Buffer {
  public:
    /// `values` may be null only if `capacity` is 0.
    Buffer(T* values, size_t capacity, size_t* count, const char* name, const char* count_name)
        : values_(values), capacity_(capacity), count_(count) {
        expect_array(values, capacity, name);
        expect(count, count_name);
    }

    void write(std::span<const T> all) const {
        std::copy_n(all.begin(), std::min(all.size(), capacity_), values_);
        *count_ = all.size();
    }
    /// The same, ended by 0 where there is room.
    void write_text(std::string_view all) const {
        write({all.data(), all.size()});
        if (all.size() < capacity_) values_[all.size()] = '\0';
    }

  private:
    T* values_;
    size_t capacity_;
    size_t* count_;
};

}  // namespace conclave::c_api
