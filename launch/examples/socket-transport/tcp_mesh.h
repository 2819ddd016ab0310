// Collectives over plain TCP: every process has a connection to every other.
//
// A rank that fails makes a new connection to each of the others, which says why, so that it never
// matters what is half sent on the old ones. Ranks look for that in every wait. One whose peer is
// gone without a word fails with kGone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

class TcpMesh {
  public:
    /// What a rank fails with if a peer cannot be reached, or closes its connection.
    static constexpr int32_t kGone = 2001;
    /// What peers sent is not what this rank awaits: they are in different collectives.
    static constexpr int32_t kOutOfStep = 2002;

    /// `peers`: "host:port" of every rank. Connects to all of them, for which it waits 60 s; throws
    /// std::runtime_error.
    TcpMesh(int rank, const std::vector<std::string>& peers);
    ~TcpMesh();
    TcpMesh(const TcpMesh&) = delete;
    TcpMesh& operator=(const TcpMesh&) = delete;

    int rank() const { return rank_; }
    int size() const { return static_cast<int>(peers_.size()); }

    // Collectives. 0, or the status that they failed with; text() says more then.
    int32_t all_gather(const void* send, void* recv, const size_t* bytes);
    /// Every rank adds up (or takes the maximum of) all values itself, in rank order: so all get
    /// the same bits.
    int32_t all_reduce(float* data, size_t count, bool maximum);
    int32_t broadcast(void* data, size_t bytes, int root);
    int32_t barrier();

    /// Tells all others, unless it was one of them that told this rank.
    void abort(int32_t status, const std::string& text);
    const std::string& text() const { return text_; }

  private:
    /// A connection, and what this exchange sends and receives on it.
    struct Peer {
        std::string host, port;
        int fd = -1;
        uint64_t head_out[2] = {}, head_in[2] = {};
        const char* data_out = nullptr;
        char* data_in = nullptr;
        size_t sent = 0, received = 0;  // of head and data
        size_t to_send = 0, to_receive = 0;
    };

    void listen();
    void connect_to(int peer);
    void accept_peers(int missing);
    void expect(int peer, const void* send, size_t send_bytes, void* recv, size_t recv_bytes);
    int32_t exchange();
    int32_t send_some(int peer);
    int32_t receive_some(int peer);
    int32_t gone(int peer);
    int32_t fail(int32_t status, const std::string& text);
    bool hear_abort(int wait_ms);
    int accept_hello(int* rank, int wait_ms);

    int rank_;
    std::vector<Peer> peers_;
    int listener_ = -1;
    uint64_t exchanges_ = 0;
    std::vector<float> terms_;
    int32_t status_ = 0;  // 0: all is well
    bool told_ = false;   // the others know
    std::string text_;
};
