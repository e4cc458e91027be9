"""Readers of what engines tell about themselves: vLLM, SGLang, TGI, llama.cpp.

`probe.HttpProber` finds out which one answers at a URL and makes its reader. Names of metrics are
those of scheduling.md section 2(a); older names stand beside the present ones.
"""
