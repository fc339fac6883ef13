"""NVIDIA's template of `tensorrt_llm`'s config.pbtxt, release by release, written without a look at ours.

Read in all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt of tensorrtllm_backend (24.04, 25.05)
and, where it moved to, in triton_backend/ of TensorRT-LLM (1.2). A line of the tables is a tensor: name,
type, dims; then "scalar" for a reshape to nothing, "ragged", "optional".
"""

from __future__ import annotations

_INPUTS = """
input_ids                          INT32  -1     ragged optional
encoder_input_features             ${encoder_input_features_data_type} -1,-1 ragged optional
encoder_output_lengths             INT32  1      scalar optional
input_lengths                      INT32  1      scalar
request_output_len                 INT32  1      scalar
num_return_sequences               INT32  1      scalar optional
draft_input_ids                    INT32  -1     ragged optional
decoder_input_ids                  INT32  -1     ragged optional
decoder_input_lengths              INT32  1      scalar optional
draft_logits                       ${logits_datatype} -1,-1 ragged optional
draft_acceptance_threshold         FP32   1      scalar optional
end_id                             INT32  1      scalar optional
pad_id                             INT32  1      scalar optional
stop_words_list                    INT32  2,-1   ragged optional
bad_words_list                     INT32  2,-1   ragged optional
embedding_bias                     FP32   -1     ragged optional
beam_width                         INT32  1      scalar optional
temperature                        FP32   1      scalar optional
runtime_top_k                      INT32  1      scalar optional
runtime_top_p                      FP32   1      scalar optional
runtime_top_p_min                  FP32   1      scalar optional
runtime_top_p_decay                FP32   1      scalar optional
runtime_top_p_reset_ids            INT32  1      scalar optional
len_penalty                        FP32   1      scalar optional
early_stopping                     BOOL   1      scalar optional
repetition_penalty                 FP32   1      scalar optional
min_tokens                         INT32  1      scalar optional
beam_search_diversity_rate         FP32   1      scalar optional
presence_penalty                   FP32   1      scalar optional
frequency_penalty                  FP32   1      scalar optional
seed                               UINT64 1      scalar optional
return_log_probs                   BOOL   1      scalar optional
return_context_logits              BOOL   1      scalar optional
return_generation_logits           BOOL   1      scalar optional
return_perf_metrics                BOOL   1      scalar optional
return_num_input_tokens            BOOL   1      scalar optional
return_num_output_tokens           BOOL   1      scalar optional
exclude_input_in_output            BOOL   1      scalar optional
stop                               BOOL   1      scalar optional
streaming                          BOOL   1      scalar optional
prompt_embedding_table             ${prompt_embedding_table_data_type} -1,-1 ragged optional
prompt_table_extra_ids             UINT64 -1     ragged optional
prompt_vocab_size                  INT32  1      scalar optional
cross_attention_mask               BOOL   -1,-1  ragged optional
mrope_rotary_cos_sin               FP32   -1     optional
mrope_position_deltas              INT64  1      optional
lora_task_id                       UINT64 1      scalar optional
lora_weights                       FP16   -1,-1  ragged optional
lora_config                        INT32  -1,3   ragged optional
context_phase_params               UINT8  -1     ragged optional
skip_cross_attn_blocks             BOOL   1      ragged optional
retention_token_range_starts       INT32  -1     ragged optional
retention_token_range_ends         INT32  -1     ragged optional
retention_token_range_priorities   INT32  -1     ragged optional
retention_token_range_durations_ms INT32  -1     ragged optional
retention_decode_priority          INT32  1      ragged optional
retention_decode_duration_ms       INT32  1      ragged optional
guided_decoding_guide_type         STRING 1      ragged optional
guided_decoding_guide              STRING 1      ragged optional
lookahead_window_size              INT32  1      ragged optional
lookahead_ngram_size               INT32  1      ragged optional
lookahead_verification_set_size    INT32  1      ragged optional
"""
_OUTPUTS = """
output_ids                  INT32 -1,-1
sequence_length             INT32 -1
cum_log_probs               FP32  -1
output_log_probs            FP32  -1,-1
context_logits              ${logits_datatype} -1,-1
generation_logits           ${logits_datatype} -1,-1,-1
batch_index                 INT32 1
sequence_index              INT32 1
context_phase_params        UINT8 -1
kv_cache_alloc_new_blocks   INT32 1
kv_cache_reused_blocks      INT32 1
kv_cache_alloc_total_blocks INT32 1
arrival_time_ns             INT64 1
first_scheduled_time_ns     INT64 1
first_token_time_ns         INT64 1
last_token_time_ns          INT64 1
acceptance_rate             FP32  1
total_accepted_draft_tokens INT32 1
total_draft_tokens          INT32 1
num_input_tokens            INT32 1
num_output_tokens           INT32 1
"""
# Parameters; "=" where the placeholder has another name, or where there is none.
_PARAMETERS = """
max_beam_width FORCE_CPU_ONLY_INPUT_TENSORS=no gpt_model_type=${batching_strategy}
gpt_model_path=${engine_dir} encoder_model_path=${encoder_engine_dir}
max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length
batch_scheduler_policy kv_cache_free_gpu_mem_fraction cross_kv_cache_fraction kv_cache_host_memory_bytes
kv_cache_onboard_blocks enable_trt_overlap exclude_input_in_output cancellation_check_period_ms
stats_check_period_ms iter_stats_max_iterations request_stats_max_iterations enable_kv_cache_reuse
normalize_log_probs enable_chunked_context gpu_device_ids participant_ids num_nodes
lora_cache_optimal_adapter_size lora_cache_max_adapter_size lora_cache_gpu_memory_fraction
lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode
executor_worker_path=/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker lookahead_window_size
lookahead_ngram_size lookahead_verification_set_size medusa_choices eagle_choices gpu_weights_percent
enable_context_fmha_fp32_acc multi_block_mode cuda_graph_mode cuda_graph_cache_size
speculative_decoding_fast_logits tokenizer_dir guided_decoding_backend xgrammar_tokenizer_info_path
"""
# What an earlier release had otherwise: a name alone was not there, a whole line was so.
_EARLIER = {
    "1.2": [],
    "25.05": ["return_num_input_tokens", "return_num_output_tokens", "num_input_tokens", "num_output_tokens"],
    "24.04": [
        "input_ids INT32 -1 ragged",
        "request_output_len INT32 1",
        "stop BOOL 1 optional",
        "streaming BOOL 1 optional",
        *("seed", "min_tokens", "return_perf_metrics", "exclude_input_in_output"),
        *("guided_decoding_guide_type", "guided_decoding_guide", "guided_decoding_backend"),
        *("tokenizer_dir", "xgrammar_tokenizer_info_path", "stats_check_period_ms"),
    ],
}
RELEASES = tuple(_EARLIER)


def template(release: str = "1.2") -> str:
    """The file's text, with its comments' kind of quotes and its placeholders."""
    earlier = {line.split()[0]: line for line in _EARLIER[release]}
    inputs, outputs = (
        ",\n".join(_tensor(line) for line in _lines(table, earlier)) for table in (_INPUTS, _OUTPUTS)
    )
    parameters = "".join(map(_parameter, _lines(_PARAMETERS.replace(" ", "\n"), earlier)))
    return f"""# Module identifiers of `lora_config`:
# "attn_qkv": 0  # the adapter of all three
name: "tensorrt_llm"
backend: "${{triton_backend}}"
max_batch_size: ${{triton_max_batch_size}}

model_transaction_policy {{
  decoupled: ${{decoupled_mode}}
}}

dynamic_batching {{
    preferred_batch_size: [ ${{triton_max_batch_size}} ]
    max_queue_delay_microseconds: ${{max_queue_delay_microseconds}}
    default_queue_policy: {{ max_queue_size: ${{max_queue_size}} }}
}}

input [
{inputs}
]
output [
{outputs}
]
instance_group [
  {{
    count: 1
    kind : KIND_CPU
  }}
]
{parameters}"""


def _lines(table: str, earlier: dict[str, str]) -> list[str]:
    lines = [earlier.get(line.replace("=", " ").split()[0], line) for line in table.split("\n") if line]
    return [line for line in lines if line not in earlier]


def _tensor(line: str) -> str:
    name, kind, dims, *flags = line.split()
    fields = [
        f'name: "{name}"',
        f"data_type: {kind if kind.startswith('$') else f'TYPE_{kind}'}",
        f"dims: [ {dims.replace(',', ', ')} ]",
        *(["reshape: { shape: [ ] }"] if "scalar" in flags else []),
        *(["optional: true"] if "optional" in flags else []),
        *(["allow_ragged_batch: true"] if "ragged" in flags else []),
    ]
    return "  {\n" + "\n".join(f"    {field}" for field in fields) + "\n  }"


def _parameter(line: str) -> str:
    key, _, value = line.partition("=")
    value = value or f"${{{key}}}"
    return f'parameters: {{\n  key: "{key}"\n  value: {{\n    string_value: "{value}"\n  }}\n}}\n'
