"""Pages as engines show them: /metrics, with what a reader must find in it and what it must not."""

VLLM = b"""\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12093.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 37.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 1.0
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="weights_offloaded"} 0.0
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="discard_all"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.6125
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 901000.0
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 100000.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 12.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7632e+09
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 9.01e+05
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7632e+09
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 7.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 100500.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 412345.0
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"} 9876.5
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="m"} 100.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.025",model_name="m"} 400.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.05",model_name="m"} 900.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 1000.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="m"} 1000.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",\
gpu_memory_utilization="0.92",kv_cache_dtype_skip_layers="[]",num_cpu_blocks="None",\
num_gpu_blocks="26875",prefix_caching_hash_algo="sha256",sliding_window="None"} 1.0
"""

VLLM_TWO_ENGINES = b"""\
vllm:num_requests_running{engine="0",model_name="m"} 10.0
vllm:num_requests_running{engine="1",model_name="m"} 30.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.6
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
vllm:num_preemptions_total{engine="1",model_name="m"} 2.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.05",model_name="m"} 7.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.05",model_name="m"} 5.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 8.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="+Inf",model_name="m"} 6.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="2000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="2000"} 1.0
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0
vllm:engine_sleep_state{engine="1",sleep_state="awake"} 1.0
"""

VLLM_OLD = b"""\
vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 1.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:num_preemptions{model_name="m"} 8.0
vllm:prompt_tokens{model_name="m"} 800.0
vllm:time_per_output_token_seconds_bucket{le="0.1",model_name="m"} 3.0
vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 3.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0
"""

SGLANG = b"""\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="Qwen3",pp_rank="0",tp_rank="0"} 21.0
sglang:num_queue_reqs{engine_type="unified",model_name="Qwen3",pp_rank="0",tp_rank="0"} 5.0
sglang:token_usage{engine_type="unified",model_name="Qwen3",pp_rank="0",tp_rank="0"} 0.44
sglang:num_used_tokens{engine_type="unified",model_name="Qwen3",pp_rank="0",tp_rank="0"} 176000.0
sglang:max_total_num_tokens{engine_type="unified",model_name="Qwen3",tp_rank="0"} 400000.0
sglang:cache_hit_rate{model_name="Qwen3",tp_rank="0"} 0.12
sglang:num_retracted_requests_total{model_name="Qwen3",tp_rank="0"} 3.0
sglang:prompt_tokens_total{model_name="Qwen3"} 5.0e+06
sglang:generation_tokens_total{model_name="Qwen3"} 2.0e+06
sglang:cached_tokens_total{cache_source="device",model_name="Qwen3"} 40000.0
sglang:inter_token_latency_seconds_bucket{le="0.02",model_name="Qwen3"} 50.0
sglang:inter_token_latency_seconds_bucket{le="+Inf",model_name="Qwen3"} 60.0
"""

SGLANG_PRIORITIES = b"""\
sglang:num_running_reqs{model_name="m",priority="",tp_rank="0"} 8.0
sglang:num_queue_reqs{model_name="m",priority="",tp_rank="0"} 7.0
sglang:num_queue_reqs{model_name="m",priority="0",tp_rank="0"} 2.0
sglang:num_queue_reqs{model_name="m",priority="-11",tp_rank="0"} 5.0
"""

SGLANG_RANKS = b"""\
sglang:num_running_reqs{dp_rank="0",model_name="m",tp_rank="0"} 8.0
sglang:num_running_reqs{dp_rank="1",model_name="m",tp_rank="1"} 4.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 7.0
sglang:num_queue_reqs{model_name="m",tp_rank="1"} 7.0
"""

TGI = b"""\
# HELP tgi_queue_size
# TYPE tgi_queue_size gauge
tgi_queue_size 6
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 14
# TYPE tgi_batch_current_max_tokens gauge
tgi_batch_current_max_tokens 24000
tgi_request_input_length_sum 81000
tgi_request_input_length_count 300
tgi_request_generated_tokens_sum 40000
tgi_request_mean_time_per_token_duration_bucket{le="0.05"} 200
tgi_request_mean_time_per_token_duration_bucket{le="+Inf"} 300
"""

LLAMACPP = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 5120
# HELP llamacpp:prompt_seconds_total Prompt process time
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 3.2
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 2048
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 2.5
# TYPE llamacpp:prompt_tokens_seconds gauge
llamacpp:prompt_tokens_seconds 1600
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 3
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
"""
