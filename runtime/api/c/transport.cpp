#include "runtime/api/c/callbacks.h"
#include "runtime/api/c/handles.h"

using namespace conclave;
using namespace conclave::c_api;

namespace {

Transport transport_of(const conclave_transport& host) {
    Transport t;
    t.rank = host.rank;
    t.size = host.size;
    if (host.all_reduce)
        t.all_reduce = [host](float* data, size_t count, bool maximum) {
            expect_host("all_reduce", [&] {
                return host.all_reduce(host.user, data, count,
                                       maximum ? CONCLAVE_MAX : CONCLAVE_SUM);
            });
        };
    if (host.all_gather)
        t.all_gather = [host](const void* send, void* recv, std::span<const size_t> bytes) {
            expect_host("all_gather",
                        [&] { return host.all_gather(host.user, send, recv, bytes.data()); });
        };
    if (host.broadcast)
        t.broadcast = [host](void* data, size_t bytes, int root) {
            expect_host("broadcast", [&] { return host.broadcast(host.user, data, bytes, root); });
        };
    if (host.barrier)
        t.barrier = [host] { expect_host("barrier", [&] { return host.barrier(host.user); }); };
    if (host.abort)
        t.abort = [host](const Error& e) { host.abort(host.user, status_of(e), e.what()); };
    return t;
}

}  // namespace

conclave_status conclave_comm_transport(const conclave_transport* transport, conclave_comm** comm) {
    return guarded([&] {
        expect_struct(transport, "transport", "conclave_transport");
        expect(comm, "comm");
        *comm = new_comm_handle(comm_from_transport(transport_of(*transport)));
    });
}
