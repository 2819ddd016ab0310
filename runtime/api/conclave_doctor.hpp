// What the ranks of a job have and how fast they are: what `conclave doctor` prints. No model.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/api/conclave.hpp"

namespace conclave {

/// What one rank found. Sizes in bytes, rates in bytes per second; 0 or empty where not known.
struct DoctorRank {
    int rank = 0, local_rank = 0;
    std::string host;
    int64_t pid = 0;
    std::string cpu_model;
    std::vector<int> cpus;        ///< that it may use, ascending
    int host_cpus = 0;            ///< that it could have if nobody bound it
    int threads_per_core = 1;     ///< 2 where hyper-threading is on
    std::vector<int> numa_nodes;  ///< of `cpus`
    int threads = 0;              ///< that an engine would run here
    std::string isa;              ///< the best that all ranks have: "avx512vnni"
    std::string features;         ///< what this rank would use alone
    std::string beyond;           ///< of `features`, what other ranks lack
    std::string switched_off;     ///< what CONCLAVE_ISA keeps it from
    std::string library;          ///< Communicator::library(): "Open MPI 4.1.4, ..."
    std::string pages;            ///< that its memory got: "2 MiB pages (transparent)"
    bool small_pages = false;     ///< 4 KiB ones
    int64_t huge_pages = 0, huge_pages_free = 0;  ///< of 2 MiB, in the hugetlbfs pool of its host
    std::string transparent_huge_pages;           ///< "madvise", "always", "never"
    double read_alone = 0;                        ///< while no other rank of its host reads
    double read_together = 0;                     ///< while all do
    uint64_t memory = 0, memory_free = 0;
    uint64_t memory_limit = 0;          ///< of its control group; 0: none
    uint64_t shm = 0, shm_free = 0;     ///< of /dev/shm
    std::vector<std::string> networks;  ///< "eth0 10.0.0.1/24"; those that are up, IPv4
    std::string tcp_networks;           ///< what Open MPI was told to use or to leave out
    bool infiniband = false;
    bool keepalive = false;  ///< Open MPI was told to look after its connections between hosts
    int launched = 0;        ///< ranks that the launcher says it started
};

/// Two ranks, by messages to and fro: half of the time of a round trip.
struct DoctorPair {
    int a = 0, b = 0;  ///< a < b
    double latency_us = 0;
    double bandwidth = 0;  ///< bytes per second
};

struct DoctorAdvice {
    std::string topic;   ///< a word that programs may look for: "binding", "huge pages"
    std::string reason;  ///< what is so, and what it costs
    std::string action;  ///< what to do: a flag, a command
};

struct DoctorReport {
    std::string backend;  ///< "mpi", "local", "self", "transport"
    double deadline_seconds = 0;
    std::vector<DoctorRank> ranks;
    std::vector<DoctorPair> pairs;
    std::string pairs_left_out;  ///< which were not measured, and why; empty: none
    double read_together = 0;    ///< of all ranks
    std::vector<DoctorAdvice> advice;
};

/// Collective. Measures for about 10 s at most (longer where links are very slow), says what it
/// does through options.log. The report is rank 0's; elsewhere it is empty. Of `options`, threads,
/// deadline_seconds, log and abort matter.
CONCLAVE_API DoctorReport doctor(const EngineOptions& options, const Comm& comm);

/// What to change, from the facts of `report` alone.
CONCLAVE_API std::vector<DoctorAdvice> advise(const DoctorReport& report);

/// One JSON object, without a newline at the end.
CONCLAVE_API std::string to_json(const DoctorReport& report);

}  // namespace conclave
