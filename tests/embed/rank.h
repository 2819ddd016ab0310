// One rank of an engine, through the C interface.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/api/conclave.h"

namespace conclave::test {

struct Outcome {
    conclave_status status = CONCLAVE_OK;      ///< of the first call that failed
    std::string error;                         ///< conclave_last_error() after it
    std::vector<std::vector<int32_t>> tokens;  ///< rank 0: of each prompt
};

inline const std::vector<std::vector<int32_t>>& prompts() {
    static const std::vector<std::vector<int32_t>> all = {
        {5, 9, 2, 44, 17, 3, 8}, {90, 1, 1, 60}, {7}};
    return all;
}

inline conclave_engine_config config_of(const std::string& model) {
    conclave_engine_config config;
    conclave_engine_config_init(&config, sizeof config);
    config.model = model.c_str();
    config.deterministic = 1;
    config.threads = 1;
    config.max_num_batched_tokens = 5;  // prompts take several steps
    return config;
}

/// Makes an engine, generates `tokens` for each prompt, destroys the engine. Ranks other than 0
/// follow, or step if their number is even.
inline Outcome run_rank(const conclave_engine_config& config, const conclave_comm* comm,
                        int64_t tokens = 6) {
    Outcome outcome;
    conclave_engine* engine = nullptr;
    const auto check = [&](conclave_status status) {
        if (status == CONCLAVE_OK || outcome.status != CONCLAVE_OK) return status == CONCLAVE_OK;
        outcome.status = status;
        outcome.error = conclave_last_error();
        return false;
    };
    if (!check(conclave_engine_create(&config, comm, &engine))) return outcome;
    conclave_engine_info info{};
    info.struct_size = sizeof info;
    check(conclave_engine_get_info(engine, &info));
    conclave_step_info step{};
    step.struct_size = sizeof step;
    if (info.rank == 0) {
        std::vector<uint64_t> ids;
        for (const std::vector<int32_t>& prompt : prompts()) {
            conclave_sequence_config sequence;
            conclave_sequence_config_init(&sequence, sizeof sequence);
            sequence.prompt = prompt.data();
            sequence.prompt_tokens = prompt.size();
            sequence.max_tokens = tokens;
            sequence.ignore_eos = 1;
            check(conclave_engine_add(engine, &sequence, &ids.emplace_back()));
        }
        do {
            if (!check(conclave_engine_step(engine, &step))) break;
        } while (step.unfinished > 0);
        if (outcome.status == CONCLAVE_OK) check(conclave_engine_shutdown(engine));
        for (const uint64_t id : ids) {
            if (outcome.status != CONCLAVE_OK) break;
            size_t count = 0;
            outcome.tokens.emplace_back(static_cast<size_t>(tokens));
            check(conclave_engine_tokens(engine, id, outcome.tokens.back().data(),
                                         static_cast<size_t>(tokens), &count));
            outcome.tokens.back().resize(count);
        }
    } else if (info.rank % 2 == 1) {
        check(conclave_engine_follow(engine));
    } else {
        while (check(conclave_engine_step(engine, &step)) && !step.shut_down) {
        }
    }
    check(conclave_engine_destroy(engine));
    return outcome;
}

}  // namespace conclave::test
