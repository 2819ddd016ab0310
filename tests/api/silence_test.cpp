// The process is the host's: nothing is printed, and its modes, handlers and locale stay as they
// are, also where something fails.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cfenv>
#include <clocale>
#include <csignal>
#include <cstdio>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "tests/api/support.h"

namespace conclave::testing {
namespace {

/// What goes to a file descriptor while it lives.
class Captured {
  public:
    explicit Captured(int descriptor) : descriptor_(descriptor), saved_(dup(descriptor)) {
        std::fflush(nullptr);
        EXPECT_EQ(pipe2(pipe_, O_NONBLOCK), 0);
        dup2(pipe_[1], descriptor_);
    }
    ~Captured() {
        for (const int fd : {saved_, pipe_[0], pipe_[1]}) close(fd);
    }
    std::string end() {
        std::fflush(nullptr);
        dup2(saved_, descriptor_);
        std::string all(65536, '\0');
        const ssize_t n = read(pipe_[0], all.data(), all.size());
        all.resize(n > 0 ? static_cast<size_t>(n) : 0);
        return all;
    }

  private:
    int descriptor_, saved_;
    int pipe_[2] = {-1, -1};
};

struct ProcessState {
    int rounding = std::fegetround();
    unsigned mxcsr = control_bits();
    std::string locale = std::setlocale(LC_ALL, nullptr);
    std::array<struct sigaction, 65> handlers = all_handlers();

    static unsigned control_bits() {
#if defined(__x86_64__)
        return _mm_getcsr() & ~0x3fu;  // without the flags of what has happened
#else
        return 0;
#endif
    }
    static std::array<struct sigaction, 65> all_handlers() {
        std::array<struct sigaction, 65> all{};
        for (int s = 1; s < 65; ++s) sigaction(s, nullptr, &all[static_cast<size_t>(s)]);
        return all;
    }
    void expect_unchanged() const {
        const ProcessState now;
        EXPECT_EQ(now.rounding, rounding);
        EXPECT_EQ(now.mxcsr, mxcsr);
        EXPECT_EQ(now.locale, locale);
        for (size_t s = 1; s < 65; ++s) {
            EXPECT_EQ(now.handlers[s].sa_handler, handlers[s].sa_handler) << "signal " << s;
            EXPECT_EQ(now.handlers[s].sa_flags, handlers[s].sa_flags) << "signal " << s;
        }
    }
};

/// Uses most of the interface, well and badly.
std::vector<int32_t> use_it() {
    Config config(kShakespeare.c_str());
    TestEngine engine(config);
    Order order;
    order.prompt = nullptr, order.prompt_tokens = 0;
    order.text = "To be, or not to be";
    order.temperature = 0.7;
    order.top_p = 0.9;
    const uint64_t id = engine.add(order);
    engine.run();
    char* json = nullptr;
    EXPECT_OK(conclave_plan(&config, 2, &json));
    conclave_free(json);
    Order failing;
    failing.on_token = [](void*, const conclave_token*) -> int32_t { throw 1; };
    const std::vector<int32_t> ids = engine.tokens(id);
    engine.add(failing);
    EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_CALLBACK);
    conclave_engine* none = nullptr;
    const Config nowhere("/nowhere");
    EXPECT_EQ(conclave_engine_create(&nowhere, nullptr, &none), CONCLAVE_ERROR_MISSING_FILE);
    on_ranks(2, [](int32_t rank, conclave_comm* comm) {
        TestEngine engine(Config(), comm);
        if (rank == 0) {
            engine.add(Order());
            engine.run();
        } else {
            EXPECT_OK(conclave_engine_follow(engine));
        }
    });
    conclave_plugins* plugins = nullptr;
    EXPECT_OK(conclave_plugins_load(nullptr, 0, &plugins));
    EXPECT_OK(conclave_plugins_destroy(plugins));
    return ids;
}

TEST(Silence, NothingIsPrintedOrChanged) {
    if (!std::setlocale(LC_ALL, "C.UTF-8")) std::setlocale(LC_ALL, "C");
    const ProcessState before;
    Captured out(STDOUT_FILENO), err(STDERR_FILENO);
    use_it();
    const std::string printed = out.end(), complained = err.end();
    EXPECT_EQ(printed, "");
    EXPECT_EQ(complained, "");
    before.expect_unchanged();
    std::setlocale(LC_ALL, "C");
}

TEST(Silence, AnyRoundingModeIsEndured) {
    for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        ASSERT_EQ(std::fesetround(mode), 0);
        const ProcessState before;
        const std::vector<int32_t> ids = use_it();
        before.expect_unchanged();
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(ids.size(), 4u);
    }
}

}  // namespace
}  // namespace conclave::testing
