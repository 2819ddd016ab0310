/* A language model in a C program: one process, its ranks are threads.
 *
 *     embed-c MODEL [PROMPT [TOKENS [RANKS]]] */
#define _POSIX_C_SOURCE 200809L
#include <conclave.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 64 };

static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

struct job {
    const char* model;
    const char* prompt;
    long tokens;
};

struct rank {
    const struct job* job;
    conclave_comm* comm;
    conclave_status status;
    char error[512]; /* conclave_last_error() belongs to the thread */
};

/* ---- callbacks: other than 0 ends the call, on all ranks --------------------------------- */

static int32_t print_token(void* user, const conclave_token* token) {
    (void)user;
    fwrite(token->text, 1, token->text_bytes, stdout);
    return fflush(stdout) == 0 ? 0 : CONCLAVE_HOST_STATUS;
}

static int32_t was_interrupted(void* user) {
    (void)user;
    return interrupted;
}

static void print_warning(void* user, conclave_log_level level, const char* message) {
    (void)user;
    if (level >= CONCLAVE_LOG_WARNING) fprintf(stderr, "%s\n", message);
}

/* ---- one rank ---------------------------------------------------------------------------- */

static conclave_status generate(conclave_engine* engine, const struct job* job) {
    conclave_sequence_config sequence;
    conclave_status status = conclave_sequence_config_init(&sequence, sizeof sequence);
    if (status != CONCLAVE_OK) return status;
    sequence.text = job->prompt;
    sequence.max_tokens = job->tokens;
    sequence.on_token = print_token;
    uint64_t id;
    status = conclave_engine_add(engine, &sequence, &id);
    conclave_step_info info = {.struct_size = sizeof info, .unfinished = 1};
    while (status == CONCLAVE_OK && info.unfinished > 0)
        status = conclave_engine_step(engine, &info);
    if (status == CONCLAVE_OK) status = conclave_engine_shutdown(engine);
    printf("\n");
    return status;
}

static conclave_status print_figures(const conclave_engine* engine) {
    conclave_engine_stats stats = {.struct_size = sizeof stats};
    char* description;
    conclave_status status = conclave_engine_get_stats(engine, &stats);
    if (status == CONCLAVE_OK) status = conclave_engine_describe(engine, &description);
    if (status != CONCLAVE_OK) return status;
    fprintf(stderr, "%s\n", description);
    conclave_free(description);
    fprintf(stderr, "prompt    %" PRIu64 " tokens in %.3f s\n", stats.prompt_tokens,
            stats.prefill_seconds);
    fprintf(stderr, "generated %" PRIu64 " tokens in %.3f s\n", stats.generated_tokens,
            stats.decode_seconds);
    fprintf(stderr, "weights   %.1f MB on rank 0\n", stats.resident_weight_bytes / 1e6);
    return CONCLAVE_OK;
}

static conclave_status configure(conclave_engine_config* config, const struct job* job) {
    const conclave_status status = conclave_engine_config_init(config, sizeof *config);
    config->model = job->model;
    config->log = print_warning;
    config->abort = was_interrupted;
    return status;
}

static conclave_status run(struct rank* rank) {
    conclave_engine_config config;
    conclave_engine* engine;
    int32_t number;
    conclave_status status = configure(&config, rank->job);
    if (status == CONCLAVE_OK) status = conclave_comm_rank(rank->comm, &number);
    if (status == CONCLAVE_OK) status = conclave_engine_create(&config, rank->comm, &engine);
    if (status != CONCLAVE_OK) return status;
    if (number != 0) {
        status = conclave_engine_follow(engine);
    } else {
        status = generate(engine, rank->job);
        if (status == CONCLAVE_OK) status = print_figures(engine);
    }
    snprintf(rank->error, sizeof rank->error, "%s", conclave_last_error());
    conclave_engine_destroy(engine);
    return status;
}

static void* rank_main(void* argument) {
    struct rank* rank = argument;
    rank->status = run(rank);
    if (rank->status != CONCLAVE_OK && rank->error[0] == '\0')
        snprintf(rank->error, sizeof rank->error, "%s", conclave_last_error());
    conclave_comm_destroy(rank->comm);
    return NULL;
}

/* ---- the program ------------------------------------------------------------------------- */

static int complain(conclave_status status, const char* message) {
    fprintf(stderr, "embed-c: %s (%d): %s\n", conclave_status_name(status), (int)status, message);
    return 1;
}

static int run_ranks(const struct job* job, int32_t count) {
    conclave_comm* comms[MAX_RANKS];
    struct rank ranks[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    const conclave_status status = conclave_comm_local(count, comms);
    if (status != CONCLAVE_OK) return complain(status, conclave_last_error());
    for (int32_t r = 0; r < count; ++r) {
        memset(&ranks[r], 0, sizeof ranks[r]);
        ranks[r].job = job;
        ranks[r].comm = comms[r];
        if (pthread_create(&threads[r], NULL, rank_main, &ranks[r]) != 0) abort();
    }
    for (int32_t r = 0; r < count; ++r) pthread_join(threads[r], NULL);
    if (ranks[0].status != CONCLAVE_OK) return complain(ranks[0].status, ranks[0].error);
    return 0;
}

int main(int argc, char** argv) {
    if (argc < 2 || argc > 5) {
        fprintf(stderr, "usage: embed-c MODEL [PROMPT [TOKENS [RANKS]]]\n");
        return 2;
    }
    struct job job = {argv[1], argc > 2 ? argv[2] : "O Romeo, Romeo! ",
                      argc > 3 ? strtol(argv[3], NULL, 10) : 100};
    const long ranks = argc > 4 ? strtol(argv[4], NULL, 10) : 2;
    if (ranks < 1 || ranks > MAX_RANKS) {
        fprintf(stderr, "embed-c: 1 to %d ranks\n", MAX_RANKS);
        return 2;
    }
    struct sigaction interrupt;
    memset(&interrupt, 0, sizeof interrupt);
    interrupt.sa_handler = on_interrupt;
    sigaction(SIGINT, &interrupt, NULL);

    conclave_engine_config config;
    char* plan;
    conclave_status status = configure(&config, &job);
    if (status == CONCLAVE_OK) status = conclave_plan(&config, (int32_t)ranks, &plan);
    if (status != CONCLAVE_OK) return complain(status, conclave_last_error());
    fprintf(stderr, "%s\n", plan); /* JSON: what each rank holds, reads and runs on */
    conclave_free(plan);
    return run_ranks(&job, (int32_t)ranks);
}
