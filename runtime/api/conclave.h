/* Conclave's C interface: a Mixture-of-Experts engine inside another program, over the ranks that
 * the program brings. C99; from C++ too. conclave_mpi.h adds MPI communicators.
 *
 *     conclave_engine_config config;
 *     conclave_engine_config_init(&config, sizeof config);
 *     config.model = "path/of/a/model";
 *     conclave_engine* engine;
 *     if (conclave_engine_create(&config, NULL, &engine) != CONCLAVE_OK)   // NULL: one rank
 *         return complain(conclave_last_error());
 *     conclave_sequence_config sequence;
 *     conclave_sequence_config_init(&sequence, sizeof sequence);
 *     sequence.text = "Once upon a time";
 *     uint64_t id;
 *     conclave_engine_add(engine, &sequence, &id);
 *     conclave_step_info info = {.struct_size = sizeof info};
 *     do conclave_engine_step(engine, &info); while (info.sequences > 0);
 *     conclave_engine_text(engine, id, text, sizeof text, &bytes);
 *     conclave_engine_destroy(engine);
 *
 * Ranks. Each rank of a communicator creates an engine and calls what is marked Collective in the
 * same order. Rank 0 adds sequences and reads them. Steps come together: rank 0's k-th
 * conclave_engine_step meets the k-th of every other rank, or conclave_engine_follow, which takes
 * part in steps until rank 0 shuts down. Rank 0 may let the others wait as long as it likes.
 *
 * Status. Every function that can fail returns one; conclave_last_error() then says what is wrong.
 * Out parameters are written only on CONCLAVE_OK. An error inside a Collective call ends it on all
 * ranks with the same status (on a rank that is through with it, the next one). The engine has
 * failed then: what it generated can still be read, other calls give the same status again; destroy
 * it, and its communicator. What is refused before it begins (null, HANDLE, STRUCT_SIZE, BUSY, or
 * not for this rank) has done nothing, here and elsewhere; only conclave_engine_create tells the
 * other ranks of a bad config.
 *
 * Threads. A handle belongs to one thread at a time: a call that meets another one on the same
 * engine or communicator, from a second thread or from inside a callback, returns
 * CONCLAVE_ERROR_BUSY and does nothing. conclave_engine_cancel may come from any thread and from
 * callbacks at any time. Different engines need not know of each other.
 *
 * Handles are not pointers: a null, foreign or destroyed one is told (CONCLAVE_ERROR_HANDLE).
 * Structs begin with their size, which the _init functions set with the defaults.
 * Texts are UTF-8. Strings given to the library are copied before the call returns.
 *
 * The library never prints, exits, aborts, installs signal handlers, or changes the locale, the
 * rounding mode or MPI's error handlers; it never initialises MPI unless asked. */
#ifndef CONCLAVE_H
#define CONCLAVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONCLAVE_C_API __attribute__((visibility("default")))

/* Changes when a program that was built against an older header would no longer work. */
#define CONCLAVE_ABI_VERSION 1
CONCLAVE_C_API uint32_t conclave_abi_version(void); /* of the library that runs */
CONCLAVE_C_API const char* conclave_version(void);  /* "0.1.0" */

/* ---- status ------------------------------------------------------------------------------ */

typedef int32_t conclave_status;
enum {
    CONCLAVE_OK = 0,
    CONCLAVE_ERROR_USAGE = 1,        /* the caller asked for something that cannot be */
    CONCLAVE_ERROR_BAD_CONTENT = 2,  /* a file is there, but what it holds is wrong */
    CONCLAVE_ERROR_MISSING_FILE = 3, /* a file is not there or cannot be opened */
    CONCLAVE_ERROR_UNSUPPORTED = 4,  /* well-formed, but not served by this library or CPU */
    CONCLAVE_ERROR_RESOURCE = 5,     /* memory, disk or address space ran out */
    CONCLAVE_ERROR_COMM = 6,         /* a collective failed, or a peer is gone */
    CONCLAVE_ERROR_CANCELLED = 7,    /* the abort callback asked to stop */
    CONCLAVE_ERROR_INTERNAL = 8,     /* a bug of the library */
    CONCLAVE_ERROR_HANDLE = 9,       /* null, destroyed, or of another kind */
    CONCLAVE_ERROR_STRUCT_SIZE = 10, /* struct_size is of no version of the struct known here */
    CONCLAVE_ERROR_BUSY = 11,        /* another call on this handle is under way */
    CONCLAVE_ERROR_CALLBACK = 12,    /* a callback threw a C++ exception */
    /* Callbacks return 0, or any other number to fail: it ends the call, on all ranks, as its
     * status. From here on none will ever be the library's own. */
    CONCLAVE_HOST_STATUS = 1000
};

/* "CONCLAVE_ERROR_USAGE"; "host status 1042" is written as CONCLAVE_HOST_STATUS. */
CONCLAVE_C_API const char* conclave_status_name(conclave_status status);
/* What the last call of this thread that did not return CONCLAVE_OK had to say; "" before any.
 * Valid until the next such call of this thread. */
CONCLAVE_C_API const char* conclave_last_error(void);

/* Gives back a text that the library made; null is fine. */
CONCLAVE_C_API void conclave_free(char* text);

/* ---- ranks ------------------------------------------------------------------------------- */

typedef struct conclave_comm conclave_comm;

/* Ranks that are threads of this process: writes `ranks` handles, one for each of your threads. */
CONCLAVE_C_API conclave_status conclave_comm_local(int32_t ranks, conclave_comm** comms);

typedef enum { CONCLAVE_SUM = 0, CONCLAVE_MAX = 1 } conclave_reduction;

/* A host's own collectives. All functions are needed. The library calls them from the thread that
 * is inside a call on this communicator or its engine, one at a time, in the same order and with
 * the same sizes on all ranks; between such calls it calls none. They return when this rank's part
 * is done, 0 or a failure of their own (see CONCLAVE_HOST_STATUS), after which the library calls
 * only `abort`. Waiting is theirs: deadline_seconds does not bound it. */
typedef struct {
    size_t struct_size;
    void* user;         /* passed to every function */
    int32_t rank, size; /* 0 <= rank < size */
    /* data[0..count) becomes the sum or maximum over all ranks, bit-identical on all of them; a NaN
     * wins a maximum. */
    int32_t (*all_reduce)(void* user, float* data, size_t count, conclave_reduction reduction);
    /* Rank r gives bytes[r] bytes (its `send`); `recv` gets those of all ranks in rank order, back
     * to back. Entries may be 0. `send` may be where the own piece lands in `recv`. Pointers to
     * nothing, here and elsewhere, may be null. */
    int32_t (*all_gather)(void* user, const void* send, void* recv, const size_t* bytes);
    int32_t (*broadcast)(void* user, void* data, size_t bytes, int32_t root);
    int32_t (*barrier)(void* user);
    /* Not collective: this rank has failed, with `status` and `message`. It must make every
     * collective that other ranks are in or will enter return; with `status`, so that all ranks
     * end alike. At most once; may come from any callback's failure or the engine's own. */
    void (*abort)(void* user, conclave_status status, const char* message);
} conclave_transport;

/* Collective. Ranks that talk through the host's functions; by them they tell each other their
 * hosts' names here. Where the engine needs collectives of a part of the ranks (experts that are
 * laid out as TPxEP with both above 1), they are made of all_gather. */
CONCLAVE_C_API conclave_status conclave_comm_transport(const conclave_transport* transport,
                                                       conclave_comm** comm);

CONCLAVE_C_API conclave_status conclave_comm_rank(const conclave_comm* comm, int32_t* rank);
CONCLAVE_C_API conclave_status conclave_comm_size(const conclave_comm* comm, int32_t* size);
/* Engines that were made on it keep it alive until they are destroyed. */
CONCLAVE_C_API conclave_status conclave_comm_destroy(conclave_comm* comm);

/* ---- formats from outside ---------------------------------------------------------------- */

typedef struct conclave_plugins conclave_plugins;

/* Loads every *.so of `directories`; none given (0): those of CONCLAVE_PLUGIN_PATH, then
 * conclave/plugins beside the library. Each is tried in a child process first (fork), so call this
 * before MPI is initialised and while the process has one thread. They stay loaded until the
 * process ends; the handle only says which an engine may use. */
CONCLAVE_C_API conclave_status conclave_plugins_load(const char* const* directories, size_t count,
                                                     conclave_plugins** plugins);
/* What was found and what was refused, as `conclave plugins --json` writes it; conclave_free(). */
CONCLAVE_C_API conclave_status conclave_plugins_report(const conclave_plugins* plugins,
                                                       char** json);
CONCLAVE_C_API conclave_status conclave_plugins_destroy(conclave_plugins* plugins);

/* ---- engine ------------------------------------------------------------------------------ */

typedef enum {
    CONCLAVE_LOG_DEBUG = 0,
    CONCLAVE_LOG_INFO = 1,
    CONCLAVE_LOG_WARNING = 2,
    CONCLAVE_LOG_ERROR = 3
} conclave_log_level;

/* All callbacks come from the thread that is inside the call, on its rank. They may call
 * conclave_engine_cancel and what belongs to no handle; nothing else on this engine. */
typedef void (*conclave_log_callback)(void* user, conclave_log_level level, const char* message);
/* Rank 0, while loading: bytes read by all ranks. */
typedef int32_t (*conclave_progress_callback)(void* user, uint64_t bytes, uint64_t total,
                                              double seconds);
/* Asked about every 20 ms while loading, stepping and waiting: other than 0 ends the call, on all
 * ranks, with CONCLAVE_ERROR_CANCELLED. */
typedef int32_t (*conclave_abort_callback)(void* user);

typedef struct {
    size_t struct_size;
    /* Null strings stand for the defaults. */
    const char* model;               /* directory, or a file; needed */
    const char* load_format;         /* "auto", "dummy", or a reader's name */
    const char* dummy_dtype;         /* "bf16", "f16", "f32" */
    const char* activations;         /* "auto", "f32", "bf16", "int8" */
    const char* expert_parallel;     /* "auto", "tp", "ep", "2x4" (TPxEP) */
    const char* quantization;        /* what the checkpoint says */
    const char* kv_cache_dtype;      /* "auto", "f32", "f16", "bf16" */
    int32_t deterministic;           /* 1: the same numbers at any number of ranks and threads */
    int32_t threads;                 /* of this rank; 0: its share of the CPUs */
    int64_t max_model_len;           /* tokens of one sequence; 0: what the model allows */
    int64_t max_num_seqs;            /* sequences in one step */
    int64_t max_num_batched_tokens;  /* tokens in one step; longer prompts go in chunks */
    int64_t kv_cache_tokens;         /* tokens of KV held; 0: max_model_len */
    double deadline_seconds;         /* a collective that waits longer fails; <= 0: never */
    const conclave_plugins* plugins; /* null: what is built in; the same on all ranks */
    conclave_log_callback log;
    void* log_user;
    conclave_progress_callback progress;
    void* progress_user;
    conclave_abort_callback abort;
    void* abort_user;
} conclave_engine_config;

/* Writes the defaults into the first `struct_size` bytes: pass sizeof *config. */
CONCLAVE_C_API conclave_status conclave_engine_config_init(conclave_engine_config* config,
                                                           size_t struct_size);

/* What a checkpoint is, from config.json and headers alone (safe on hostile files), as `conclave
 * inspect --json` writes it. Of the config the model, its load_format and plugins matter. */
CONCLAVE_C_API conclave_status conclave_inspect(const conclave_engine_config* config, char** json);
/* What each of `ranks` ranks would hold, read and run on, as `conclave plan --json` writes it; from
 * headers alone, and without ranks. */
CONCLAVE_C_API conclave_status conclave_plan(const conclave_engine_config* config, int32_t ranks,
                                             char** json);

typedef struct conclave_engine conclave_engine;

/* Collective. Loads the model. `comm` null: one rank. */
CONCLAVE_C_API conclave_status conclave_engine_create(const conclave_engine_config* config,
                                                      const conclave_comm* comm,
                                                      conclave_engine** engine);
/* Whatever is under way is given up. Rank 0 shuts down first if it has not, which waits for the
 * others as a step does; on the others it does not wait. Not from a callback. */
CONCLAVE_C_API conclave_status conclave_engine_destroy(conclave_engine* engine);

typedef struct {
    size_t struct_size;
    int32_t rank, size;
    int64_t vocab_size, hidden_size, layers, experts, experts_per_token;
    int64_t max_model_len; /* tokens of one sequence, as set or as the model allows */
    int32_t has_tokenizer; /* sequences may be given as text */
    int32_t threads;       /* of this rank */
} conclave_engine_info;
CONCLAVE_C_API conclave_status conclave_engine_get_info(const conclave_engine* engine,
                                                        conclave_engine_info* info);

/* Figures of this rank since the engine was made. */
typedef struct {
    size_t struct_size;
    uint64_t resident_weight_bytes, kv_bytes;
    uint64_t load_bytes_requested, load_bytes_needed, load_stripe_bytes;
    uint64_t offset_tables;
    uint64_t communication_bytes, communication_nanoseconds;
    uint64_t weight_bytes_read; /* packed weights of the matrices that steps used */
    uint64_t steps, prompt_tokens, generated_tokens;
    double prefill_seconds, decode_seconds; /* steps with any prompt token / without */
} conclave_engine_stats;
CONCLAVE_C_API conclave_status conclave_engine_get_stats(const conclave_engine* engine,
                                                         conclave_engine_stats* stats);
/* One line: "int8, bf16 activations, avx512vnni, 2 threads per rank, ..."; conclave_free(). */
CONCLAVE_C_API conclave_status conclave_engine_describe(const conclave_engine* engine, char** text);

/* ---- sequences: rank 0 ------------------------------------------------------------------- */

typedef enum {
    CONCLAVE_FINISH_NONE = 0,
    CONCLAVE_FINISH_STOP = 1, /* the model ended it, or a stop string came */
    CONCLAVE_FINISH_LENGTH = 2,
    CONCLAVE_FINISH_CANCELLED = 3
} conclave_finish_reason;

typedef struct {
    size_t struct_size; /* the library's: fields may be added at the end */
    uint64_t sequence;
    int32_t token;  /* -1: none (cancelled, or max_tokens is 0) */
    int32_t finish; /* conclave_finish_reason */
    /* What the token adds to the text: whole characters only, may be empty. Not terminated by 0,
     * null without a tokenizer. */
    const char* text;
    size_t text_bytes;
} conclave_token;
typedef int32_t (*conclave_token_callback)(void* user, const conclave_token* token);
/* The `count` (= vocab_size) logits that follow `position`, before bias and penalties. */
typedef int32_t (*conclave_logits_callback)(void* user, uint64_t sequence, int64_t position,
                                            const float* logits, size_t count);

typedef struct {
    int32_t token;
    float bias; /* -100 to 100 */
} conclave_logit_bias;

typedef struct {
    size_t struct_size;
    /* The prompt: ids, or a text, not both. */
    const int32_t* prompt;
    size_t prompt_tokens;
    const char* text;
    size_t text_bytes;  /* SIZE_MAX, the default: up to the terminating 0 */
    int64_t max_tokens; /* 0: only score the prompt */
    int32_t ignore_eos;
    int32_t keep_logits; /* 1: conclave_engine_logits() has those of the newest token */
    double temperature;  /* 0: greedy */
    int64_t top_k;       /* 0: all */
    double top_p, min_p;
    uint64_t seed;
    double repetition_penalty; /* 1: none */
    double frequency_penalty, presence_penalty;
    const conclave_logit_bias* logit_bias;
    size_t logit_bias_count;
    const char* const* stop; /* at most 16 texts; need a tokenizer */
    size_t stop_count;
    conclave_token_callback on_token;
    void* token_user;
    conclave_logits_callback on_prompt_logits; /* of every position of the prompt, in order */
    void* prompt_logits_user;
    conclave_logits_callback on_output_logits; /* of every generated position */
    void* output_logits_user;
} conclave_sequence_config;
CONCLAVE_C_API conclave_status conclave_sequence_config_init(conclave_sequence_config* config,
                                                             size_t struct_size);

CONCLAVE_C_API conclave_status conclave_engine_add(conclave_engine* engine,
                                                   const conclave_sequence_config* config,
                                                   uint64_t* sequence);
/* From any thread. It ends with the next step; its tokens can still be read. One that has ended or
 * is not known is left alone. */
CONCLAVE_C_API conclave_status conclave_engine_cancel(conclave_engine* engine, uint64_t sequence);
/* Forgets what was kept of it: sequences that are never released cost memory. Cancels it first;
 * none of its callbacks comes any more. */
CONCLAVE_C_API conclave_status conclave_engine_release(conclave_engine* engine, uint64_t sequence);

typedef struct {
    size_t struct_size;
    int64_t prompt_tokens, generated_tokens;
    int32_t finish; /* conclave_finish_reason; NONE: goes on */
} conclave_sequence_state;
CONCLAVE_C_API conclave_status conclave_engine_sequence(const conclave_engine* engine,
                                                        uint64_t sequence,
                                                        conclave_sequence_state* state);
/* What was generated so far. `*count` is how many there are; at most `capacity` are written. */
CONCLAVE_C_API conclave_status conclave_engine_tokens(const conclave_engine* engine,
                                                      uint64_t sequence, int32_t* tokens,
                                                      size_t capacity, size_t* count);
/* The same as text: whole characters, up to a stop string. Terminated by 0 where there is room. */
CONCLAVE_C_API conclave_status conclave_engine_text(const conclave_engine* engine,
                                                    uint64_t sequence, char* text, size_t capacity,
                                                    size_t* bytes);
/* The logits from which the newest token was chosen, before bias and penalties (keep_logits);
 * `*count` is vocab_size, or 0 before there is a token. */
CONCLAVE_C_API conclave_status conclave_engine_logits(const conclave_engine* engine,
                                                      uint64_t sequence, float* logits,
                                                      size_t capacity, size_t* count);

/* ---- steps: all ranks -------------------------------------------------------------------- */

typedef struct {
    size_t struct_size;
    int64_t sequences;  /* that took part in this step: 0 where rank 0 had nothing to do */
    int64_t unfinished; /* rank 0: sequences that are not done; 0 on the others */
    int32_t shut_down;  /* other ranks: rank 0 has shut down, no more steps */
} conclave_step_info;

/* Collective. One step of all sequences that fit; token callbacks come from here. `info` may be
 * null. A rank other than 0 waits for rank 0's step. */
CONCLAVE_C_API conclave_status conclave_engine_step(conclave_engine* engine,
                                                    conclave_step_info* info);
/* Ranks other than 0: steps until rank 0 shuts down. */
CONCLAVE_C_API conclave_status conclave_engine_follow(conclave_engine* engine);
/* Rank 0: its last part in the steps. Ends follow() on all ranks, and is told by `shut_down` of
 * one conclave_engine_step where they do not follow. */
CONCLAVE_C_API conclave_status conclave_engine_shutdown(conclave_engine* engine);

/* ---- text -------------------------------------------------------------------------------- */

typedef struct conclave_tokenizer conclave_tokenizer;

/* The tokenizer.json of a model directory. */
CONCLAVE_C_API conclave_status conclave_tokenizer_open(const char* model,
                                                       conclave_tokenizer** tokenizer);
CONCLAVE_C_API conclave_status conclave_tokenizer_destroy(conclave_tokenizer* tokenizer);
/* `*count` is how many there are; at most `capacity` are written. text_bytes as in sequences. */
CONCLAVE_C_API conclave_status conclave_tokenizer_encode(const conclave_tokenizer* tokenizer,
                                                         const char* text, size_t text_bytes,
                                                         int32_t add_special_tokens,
                                                         int32_t* tokens, size_t capacity,
                                                         size_t* count);
CONCLAVE_C_API conclave_status conclave_tokenizer_decode(const conclave_tokenizer* tokenizer,
                                                         const int32_t* tokens, size_t count,
                                                         int32_t skip_special_tokens, char* text,
                                                         size_t capacity, size_t* bytes);

#ifdef __cplusplus
}
#endif
#endif
