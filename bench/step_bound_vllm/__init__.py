"""A real vLLM with the scheduler class: what live users feel, what the batch gets, what goes on
working.

    python -m bench.step_bound_vllm --vllm PYTHON [--model NAME] [--device cpu]
    python -m bench.step_bound_vllm.features --vllm PYTHON

The first measures two servers beside each other, with and without the class, in at most ten
minutes; the second starts the class alone, on the CPU, and tries feature by feature.
"""
