#include "runtime/engine/engine.h"
#include "runtime/engine/dequantize.h"

#include "runtime/api/conclave.hpp"
#include "runtime/comm/local_communicator.h"

namespace conclave {

const char* version() { return CONCLAVE_VERSION; }

Comm Comm::self() { return Comm(comm::make_self()); }

std::vector<Comm> Comm::local(int ranks) {
    std::vector<Comm> out;
    for (auto& c : comm::make_local(ranks)) out.emplace_back(std::move(c));
    return out;
}

Comm::Comm(std::shared_ptr<comm::Communicator> impl) : impl_(std::move(impl)) {}
int Comm::rank() const { return impl_->rank(); }
int Comm::size() const { return impl_->size(); }
void Comm::agree(const Error* error) const { comm::agree(*impl_, error); }

DequantizeReport dequantize(const EngineOptions& options, const DequantizeOptions& to,
                            const Comm& comm) {
    return engine::dequantize(options, to, *comm.impl());
}

struct Engine::Impl {
    ModelSummary summary;
    engine::Engine engine;
};

Engine::Engine(const EngineOptions& options, const Comm& comm) {
    ModelSummary summary;
    comm::together(*comm.impl(), [&] { summary = inspect(options, false); });
    impl_ =
        std::unique_ptr<Impl>(new Impl{std::move(summary), engine::Engine(options, comm.impl())});
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

int Engine::rank() const { return impl_->engine.comm().rank(); }
int Engine::size() const { return impl_->engine.comm().size(); }
const ModelSummary& Engine::model() const { return impl_->summary; }
const LoadReport& Engine::load_report() const { return impl_->engine.load_report(); }
const std::string& Engine::description() const { return impl_->engine.description(); }
int64_t Engine::max_model_len() const { return impl_->engine.limits().max_model_len; }
int64_t Engine::vocab_size() const { return impl_->engine.limits().vocab_size; }
EngineStats Engine::stats() const { return impl_->engine.stats(); }
SequenceId Engine::add(SequenceRequest request) { return impl_->engine.add(std::move(request)); }
void Engine::cancel(SequenceId id) { impl_->engine.cancel(id); }
bool Engine::has_work() const { return impl_->engine.has_work(); }
std::vector<TokenOutput> Engine::step() { return impl_->engine.step(); }
void Engine::follow() { impl_->engine.follow(); }
bool Engine::follow_step() { return impl_->engine.follow_step(); }
void Engine::shutdown() { impl_->engine.shutdown(); }
void Engine::fail(const Error& error) noexcept { impl_->engine.comm().poison(error); }

}  // namespace conclave
