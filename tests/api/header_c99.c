/* conclave.h is C99, without extensions; and its constants are what C sees. */
#include "runtime/api/conclave.h"

int header_c99_statuses(void) { return CONCLAVE_ERROR_CALLBACK; }

size_t header_c99_sizes(void) {
    return sizeof(conclave_engine_config) + sizeof(conclave_sequence_config) +
           sizeof(conclave_engine_info) + sizeof(conclave_engine_stats) + sizeof(conclave_token) +
           sizeof(conclave_step_info) + sizeof(conclave_sequence_state) +
           sizeof(conclave_transport) + sizeof(conclave_logit_bias);
}

/* The program of the header's first comment. */
conclave_status header_c99_program(const char* model, char* text, size_t capacity, size_t* bytes) {
    conclave_engine_config config;
    conclave_engine_config_init(&config, sizeof config);
    config.model = model;
    conclave_engine* engine;
    conclave_status status = conclave_engine_create(&config, NULL, &engine);
    if (status != CONCLAVE_OK) return status;
    conclave_sequence_config sequence;
    conclave_sequence_config_init(&sequence, sizeof sequence);
    sequence.text = "Once upon a time";
    uint64_t id;
    status = conclave_engine_add(engine, &sequence, &id);
    conclave_step_info info = {.struct_size = sizeof info};
    do
        if (status == CONCLAVE_OK) status = conclave_engine_step(engine, &info);
    while (status == CONCLAVE_OK && info.sequences > 0);
    if (status == CONCLAVE_OK) status = conclave_engine_text(engine, id, text, capacity, bytes);
    conclave_engine_destroy(engine);
    return status;
}
