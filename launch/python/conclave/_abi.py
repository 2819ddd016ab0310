"""runtime/api/conclave.h in ctypes. A test compares structs and constants with the header."""
from __future__ import annotations

import ctypes
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64,
                    c_size_t, c_uint64, c_void_p)

OK = 0
WHOLE_TEXT = ctypes.c_size_t(-1).value
FINISH_REASONS = (None, "stop", "length", "cancelled")  # by conclave_finish_reason

LogCallback = CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
ProgressCallback = CFUNCTYPE(c_int32, c_void_p, c_uint64, c_uint64, c_double)
AbortCallback = CFUNCTYPE(c_int32, c_void_p)


class EngineConfig(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("model", c_char_p),
        ("load_format", c_char_p),
        ("dummy_dtype", c_char_p),
        ("activations", c_char_p),
        ("expert_parallel", c_char_p),
        ("quantization", c_char_p),
        ("kv_cache_dtype", c_char_p),
        ("deterministic", c_int32),
        ("threads", c_int32),
        ("max_model_len", c_int64),
        ("max_num_seqs", c_int64),
        ("max_num_batched_tokens", c_int64),
        ("kv_cache_tokens", c_int64),
        ("deadline_seconds", c_double),
        ("plugins", c_void_p),
        ("log", LogCallback),
        ("log_user", c_void_p),
        ("progress", ProgressCallback),
        ("progress_user", c_void_p),
        ("abort", AbortCallback),
        ("abort_user", c_void_p),
    ]


class EngineInfo(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("rank", c_int32),
        ("size", c_int32),
        ("vocab_size", c_int64),
        ("hidden_size", c_int64),
        ("layers", c_int64),
        ("experts", c_int64),
        ("experts_per_token", c_int64),
        ("max_model_len", c_int64),
        ("has_tokenizer", c_int32),
        ("threads", c_int32),
    ]


class EngineStats(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("resident_weight_bytes", c_uint64),
        ("kv_bytes", c_uint64),
        ("load_bytes_requested", c_uint64),
        ("load_bytes_needed", c_uint64),
        ("load_stripe_bytes", c_uint64),
        ("offset_tables", c_uint64),
        ("communication_bytes", c_uint64),
        ("communication_nanoseconds", c_uint64),
        ("weight_bytes_read", c_uint64),
        ("steps", c_uint64),
        ("prompt_tokens", c_uint64),
        ("generated_tokens", c_uint64),
        ("prefill_seconds", c_double),
        ("decode_seconds", c_double),
    ]


class Token(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("sequence", c_uint64),
        ("token", c_int32),
        ("finish", c_int32),
        ("text", c_void_p),  # not c_char_p: it does not end with 0
        ("text_bytes", c_size_t),
    ]


TokenCallback = CFUNCTYPE(c_int32, c_void_p, POINTER(Token))
LogitsCallback = CFUNCTYPE(c_int32, c_void_p, c_uint64, c_int64, c_void_p, c_size_t)


class LogitBias(Structure):
    _fields_ = [("token", c_int32), ("bias", c_float)]


class SequenceConfig(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("prompt", POINTER(c_int32)),
        ("prompt_tokens", c_size_t),
        ("text", c_char_p),
        ("text_bytes", c_size_t),
        ("max_tokens", c_int64),
        ("ignore_eos", c_int32),
        ("keep_logits", c_int32),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("min_p", c_double),
        ("seed", c_uint64),
        ("repetition_penalty", c_double),
        ("frequency_penalty", c_double),
        ("presence_penalty", c_double),
        ("logit_bias", POINTER(LogitBias)),
        ("logit_bias_count", c_size_t),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("on_token", TokenCallback),
        ("token_user", c_void_p),
        ("on_prompt_logits", LogitsCallback),
        ("prompt_logits_user", c_void_p),
        ("on_output_logits", LogitsCallback),
        ("output_logits_user", c_void_p),
    ]


class SequenceState(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("prompt_tokens", c_int64),
        ("generated_tokens", c_int64),
        ("finish", c_int32),
    ]


class StepInfo(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("sequences", c_int64),
        ("unfinished", c_int64),
        ("shut_down", c_int32),
    ]


# The header's name of each struct.
STRUCTS = {
    "conclave_engine_config": EngineConfig, "conclave_engine_info": EngineInfo,
    "conclave_engine_stats": EngineStats, "conclave_token": Token,
    "conclave_logit_bias": LogitBias, "conclave_sequence_config": SequenceConfig,
    "conclave_sequence_state": SequenceState, "conclave_step_info": StepInfo,
}

# Functions that return a status. Handles are void pointers, and a text that the library makes is a
# pointer too, so that it can be given back.
_OUT = POINTER(c_void_p)
_STATUS_FUNCTIONS = {
    "conclave_comm_local": [c_int32, _OUT],
    "conclave_comm_mpi_address": [c_void_p, c_size_t, c_char_p, _OUT],
    "conclave_comm_rank": [c_void_p, POINTER(c_int32)],
    "conclave_comm_size": [c_void_p, POINTER(c_int32)],
    "conclave_comm_destroy": [c_void_p],
    "conclave_plugins_load": [POINTER(c_char_p), c_size_t, _OUT],
    "conclave_plugins_report": [c_void_p, _OUT],
    "conclave_engine_config_init": [POINTER(EngineConfig), c_size_t],
    "conclave_inspect": [POINTER(EngineConfig), _OUT],
    "conclave_plan": [POINTER(EngineConfig), c_int32, _OUT],
    "conclave_engine_create": [POINTER(EngineConfig), c_void_p, _OUT],
    "conclave_engine_destroy": [c_void_p],
    "conclave_engine_get_info": [c_void_p, POINTER(EngineInfo)],
    "conclave_engine_get_stats": [c_void_p, POINTER(EngineStats)],
    "conclave_engine_describe": [c_void_p, _OUT],
    "conclave_sequence_config_init": [POINTER(SequenceConfig), c_size_t],
    "conclave_engine_add": [c_void_p, POINTER(SequenceConfig), POINTER(c_uint64)],
    "conclave_engine_cancel": [c_void_p, c_uint64],
    "conclave_engine_release": [c_void_p, c_uint64],
    "conclave_engine_sequence": [c_void_p, c_uint64, POINTER(SequenceState)],
    "conclave_engine_step": [c_void_p, POINTER(StepInfo)],
    "conclave_engine_follow": [c_void_p],
    "conclave_engine_shutdown": [c_void_p],
    "conclave_tokenizer_open": [c_char_p, _OUT],
    "conclave_tokenizer_destroy": [c_void_p],
    "conclave_tokenizer_encode": [c_void_p, c_char_p, c_size_t, c_int32, POINTER(c_int32), c_size_t,
                                  POINTER(c_size_t)],
    "conclave_tokenizer_decode": [c_void_p, POINTER(c_int32), c_size_t, c_int32, c_void_p, c_size_t,
                                  POINTER(c_size_t)],
}
_OTHER_FUNCTIONS = {
    "conclave_version": (c_char_p, []),
    "conclave_last_error": (c_char_p, []),
    "conclave_status_name": (c_char_p, [c_int32]),
    "conclave_free": (None, [c_void_p]),
}
# Left out by a library that was built without MPI.
_OPTIONAL = {"conclave_comm_mpi_address"}


def declare(library: ctypes.CDLL) -> None:
    """Says what the library's functions take and return."""
    functions: dict[str, tuple] = {
        **{name: (c_int32, arguments) for name, arguments in _STATUS_FUNCTIONS.items()},
        **_OTHER_FUNCTIONS}
    for name, (result, arguments) in functions.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            if name in _OPTIONAL:
                continue
            raise ImportError(f"the library lacks {name}: it is not whole") from None
        function.restype, function.argtypes = result, arguments
