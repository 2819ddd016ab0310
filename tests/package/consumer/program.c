/* program MODEL: the ids of eight tokens, by the C interface. */
#include <conclave.h>
#include <stdio.h>
#include <string.h>

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, conclave_last_error());
    return 1;
}

int main(int argc, char** argv) {
    static const int32_t prompt[] = {5, 6, 7};
    int32_t tokens[8];
    size_t count = 0, i;
    uint64_t id;
    conclave_engine* engine;
    conclave_engine_config config;
    conclave_sequence_config sequence;
    conclave_step_info info;

    if (argc != 2 || conclave_abi_version() != CONCLAVE_ABI_VERSION) return 2;
    if (conclave_engine_config_init(&config, sizeof config)) return fail("config");
    config.model = argv[1];
    config.activations = "f32";
    config.deterministic = 1;
    if (conclave_engine_create(&config, NULL, &engine)) return fail("create");
    if (conclave_sequence_config_init(&sequence, sizeof sequence)) return fail("sequence");
    sequence.prompt = prompt;
    sequence.prompt_tokens = sizeof prompt / sizeof *prompt;
    sequence.max_tokens = 8;
    sequence.ignore_eos = 1;
    if (conclave_engine_add(engine, &sequence, &id)) return fail("add");
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    do {
        if (conclave_engine_step(engine, &info)) return fail("step");
    } while (info.unfinished > 0);
    if (conclave_engine_tokens(engine, id, tokens, 8, &count)) return fail("tokens");
    for (i = 0; i < count; ++i) printf("%d%c", (int)tokens[i], i + 1 < count ? ' ' : '\n');
    if (conclave_engine_shutdown(engine) || conclave_engine_destroy(engine)) return fail("end");
    return 0;
}
