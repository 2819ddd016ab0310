// What every refusal of a checkpoint must look like.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::testing {

/// `attempt()` must throw `code`, and the message must hold all of `parts`.
template <class Attempt>
void expect_error(Attempt&& attempt, ErrorCode code, const std::vector<std::string>& parts) {
    try {
        attempt();
        ADD_FAILURE() << "nothing thrown";
    } catch (const Error& e) {
        const std::string message = e.what();
        EXPECT_EQ(e.code(), code) << message;
        EXPECT_LT(message.size(), 2000u);
        for (const std::string& part : parts)
            EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
        for (const char c : message) ASSERT_TRUE(c >= 0x20 && c < 0x7f) << message;
    } catch (const std::exception& e) {
        ADD_FAILURE() << "not an Error: " << e.what();
    }
}

/// The same of opening `path` as safetensors.
inline void expect_refused(const std::string& path, ErrorCode code,
                           const std::vector<std::string>& parts) {
    expect_error([&] { sharding::Checkpoint::open(path); }, code, parts);
}

}  // namespace conclave::testing
