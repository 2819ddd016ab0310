// Calls in random order, with arguments that are right, wrong, stale or foreign: each gives a
// status, and what was made can be destroyed in the end.
#include <limits>
#include <memory>
#include <random>

#include "tests/api/support.h"

namespace conclave::testing {
namespace {

class RandomHost {
  public:
    explicit RandomHost(uint32_t seed) : random_(seed) {}
    ~RandomHost() {
        for (conclave_engine* e : engines_) conclave_engine_destroy(e);
        for (conclave_comm* c : comms_) conclave_comm_destroy(c);
        for (conclave_tokenizer* t : tokenizers_) conclave_tokenizer_destroy(t);
    }

    void act() {
        switch (below(22)) {
            case 0:
                return create();
            case 1:
                return make_comm();
            case 2:
                return open_tokenizer();
            case 3:
                return report();
            case 4:
                return see(conclave_engine_destroy(engine()));
            case 5:
                return see(conclave_comm_destroy(comm()));
            case 6:
                return see(conclave_tokenizer_destroy(tokenizer()));
            case 7:
            case 8:
            case 9:
            case 10:
                return add();
            case 11:
            case 12:
            case 13:
            case 14:
                return step();
            case 15:
                return see(conclave_engine_cancel(engine(), id()));
            case 16:
                return see(conclave_engine_release(engine(), id()));
            case 17:
                return see(rare() ? conclave_engine_shutdown(engine())
                                  : conclave_engine_follow(engine()));
            case 18:
                return figures();
            case 19:
                return encode();
            default:
                return read();
        }
    }

  private:
    uint32_t below(uint32_t n) { return random_() % n; }
    bool rare() { return below(12) == 0; }
    template <class T>
    T* pick(const std::vector<T*>& all) {
        if (rare()) return reinterpret_cast<T*>(uint64_t{random_()} << 32 | random_());
        if (rare()) return nullptr;
        if (rare() && !comms_.empty()) return reinterpret_cast<T*>(comms_.front());
        return all.empty() ? nullptr : all[below(static_cast<uint32_t>(all.size()))];
    }
    conclave_engine* engine() { return pick(engines_); }
    conclave_comm* comm() { return pick(comms_); }
    conclave_tokenizer* tokenizer() { return pick(tokenizers_); }
    uint64_t id() { return rare() ? random_() : 1 + below(6); }
    double number() {
        const double all[] = {0,
                              1,
                              0.5,
                              -1,
                              1e300,
                              std::numeric_limits<double>::infinity(),
                              std::numeric_limits<double>::quiet_NaN()};
        return all[below(rare() ? 7 : 2)];
    }
    int64_t integer() {
        const int64_t all[] = {0, 1, 40, -1, INT64_MAX, INT64_MIN, int64_t{1} << 33};
        return all[below(rare() ? 7 : 3)];
    }
    static void see(conclave_status status) {
        if (status != CONCLAVE_OK) {
            ASSERT_STRNE(conclave_last_error(), "");
        }
        ASSERT_NE(status, CONCLAVE_ERROR_INTERNAL) << conclave_last_error();
    }

    void create() {
        if (engines_.size() >= 12) return;
        Config config(below(3) == 0 ? kShakespeare.c_str() : kTiny.c_str());
        if (below(3) != 0) config.load_format = "dummy";
        if (rare()) config.struct_size = random_();
        if (rare()) config.model = nullptr;
        if (rare()) config.max_model_len = integer();
        if (rare()) config.kv_cache_tokens = integer();
        if (rare()) config.max_num_seqs = integer();
        if (rare()) config.deadline_seconds = number();
        if (rare()) config.plugins = reinterpret_cast<conclave_plugins*>(comm());
        if (rare()) config.dummy_dtype = "int4-g32";
        conclave_engine* made = nullptr;
        // Communicators here have one rank, so nobody waits.
        see(conclave_engine_create(&config, below(2) == 0 ? comm() : nullptr, &made));
        if (made) engines_.push_back(made);
    }
    void make_comm() {
        conclave_comm* made = nullptr;
        see(conclave_comm_local(rare() ? -static_cast<int32_t>(below(9)) : 1, &made));
        if (made) comms_.push_back(made);
    }
    void open_tokenizer() {
        conclave_tokenizer* made = nullptr;
        see(conclave_tokenizer_open(rare() ? "/nowhere" : kShakespeare.c_str(), &made));
        if (made) tokenizers_.push_back(made);
    }
    void report() {
        const Config config;
        char* json = nullptr;
        see(rare() ? conclave_plan(&config, static_cast<int32_t>(below(5)), &json)
                   : conclave_inspect(&config, rare() ? nullptr : &json));
        conclave_free(json);
    }
    void add() {
        Order order({1, 2, static_cast<int32_t>(rare() ? random_() : below(1000))}, integer());
        const int32_t fate = rare() ? static_cast<int32_t>(random_()) : 0;
        fates_.push_back(std::make_unique<int32_t>(fate));
        const char* const stops[] = {"e", rare() ? "" : "the"};
        if (below(4) == 0) order.prompt = nullptr, order.text = "A word";
        if (rare()) order.struct_size = below(400);
        if (rare()) order.prompt_tokens = 0;
        if (rare()) order.prompt = nullptr;
        order.temperature = number();
        order.top_p = rare() ? number() : 1;
        order.top_k = integer();
        order.keep_logits = static_cast<int32_t>(below(2));
        if (below(3) == 0) order.stop = stops, order.stop_count = 2;
        order.on_token = [](void* user, const conclave_token* token) {
            EXPECT_EQ(token->struct_size, sizeof *token);
            return *static_cast<int32_t*>(user);
        };
        order.token_user = fates_.back().get();
        uint64_t made = 0;
        see(conclave_engine_add(engine(), &order, rare() ? nullptr : &made));
    }
    void step() {
        conclave_step_info info = {};
        info.struct_size = rare() ? below(100) : sizeof info;
        const conclave_status status =
            conclave_engine_step(engine(), below(2) == 0 ? &info : nullptr);
        ASSERT_TRUE(status != CONCLAVE_ERROR_BUSY && status != CONCLAVE_ERROR_CALLBACK);
    }
    void figures() {
        conclave_engine_info info = {};
        info.struct_size = rare() ? 3 : sizeof info;
        conclave_engine_stats stats = {};
        stats.struct_size = rare() ? 3 : sizeof stats;
        conclave_engine* const e = engine();
        see(conclave_engine_get_info(e, &info));
        see(conclave_engine_get_stats(e, rare() ? nullptr : &stats));
        char* text = nullptr;
        see(conclave_engine_describe(e, &text));
        conclave_free(text);
    }
    void encode() {
        int32_t ids[16];
        size_t count = 0;
        const std::string text = rare() ? std::string(300, '\xff') : "Some words";
        see(conclave_tokenizer_encode(tokenizer(), text.data(), text.size(), 1,
                                      rare() ? nullptr : ids, below(17), &count));
    }
    void read() {
        conclave_engine* const e = engine();
        const uint64_t sequence = id();
        int32_t ids[8];
        float logits[8];
        char text[8];
        size_t count = 0;
        see(conclave_engine_tokens(e, sequence, rare() ? nullptr : ids, below(9), &count));
        see(conclave_engine_logits(e, sequence, logits, below(9), rare() ? nullptr : &count));
        see(conclave_engine_text(e, sequence, text, below(9), &count));
    }

    std::mt19937 random_;
    std::vector<conclave_engine*> engines_;
    std::vector<conclave_comm*> comms_;
    std::vector<conclave_tokenizer*> tokenizers_;
    std::vector<std::unique_ptr<int32_t>> fates_;
};

TEST(RandomCalls, AlwaysGiveAStatus) {
    for (uint32_t seed = 1; seed <= 16; ++seed) {
        SCOPED_TRACE(seed);
        RandomHost host(seed);
        for (int i = 0; i < 150; ++i) host.act();
    }
}

}  // namespace
}  // namespace conclave::testing
